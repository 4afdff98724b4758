"""Joins a list of one large tensor without copying it.

Processors concatenate what they have of each image or tile, and mostly a row has one image: that copies all its pixels,
31 MB for 13 tiles, once in transformers and once in vLLM.
"""

from typing import Any

import torch
from torch.overrides import TorchFunctionMode

_CONCATENATE = {torch.cat, torch.concat, torch.concatenate}
# For smaller tensors, looking at each call of torch takes longer than the copies.
LARGE_BYTES = 4 << 20


class SoleTensors(TorchFunctionMode):
    """Within it, the concatenation of one large tensor is that tensor itself."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in _CONCATENATE and args and "out" not in kwargs:
            sole = _sole(args[0])
            if sole is not None:
                return sole
        return func(*args, **kwargs)


def _sole(tensors: Any) -> torch.Tensor | None:
    if not isinstance(tensors, list | tuple) or len(tensors) != 1:
        return None
    sole = tensors[0]
    is_large = isinstance(sole, torch.Tensor) and sole.ndim > 0 and sole.nbytes >= LARGE_BYTES
    return sole if is_large and sole.is_contiguous() else None
