"""Where mapped images are: a worker process has them in memory that the process which reads them sees, too."""

import math
from collections.abc import Callable

import numpy as np

# Memory of so many bytes or more is worth a place of its own; less is copied when it is sent.
_LARGE_BYTES = 128 << 10

_allocate: Callable[[int], np.ndarray | None] | None = None


def map_into(allocate: Callable[[int], np.ndarray | None]) -> None:
    """Take the memory of large arrays from `allocate` from now on.

    Args:
        allocate: gives uint8 (bytes), which nobody else uses as long as it or a view of it exists; None for no memory.
    """
    global _allocate
    _allocate = allocate


def new_pixels(*shape: int) -> np.ndarray:
    """An array for what a mapper returns, uint8 of this shape, not initialized."""
    if _allocate is not None:
        nbytes = math.prod(shape)
        memory = _allocate(nbytes) if nbytes >= _LARGE_BYTES else None
        if memory is not None:
            return memory.reshape(shape)
    return np.empty(shape, np.uint8)
