"""What images may take of this process's memory, and whose turn it is to decode a large one.

Processes that decode side by side share a memory file. An image that takes more than a process may have is decoded
under the file's lock, so that the largest ones are in memory one at a time. The kernel frees the lock of a process that
dies.
"""

import fcntl
import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass


class DecodeTurns:
    """The file by whose lock processes take turns.

    Attributes:
        path: by which this process and its children open it, as long as it is not closed.
    """

    def __init__(self) -> None:
        self._file = os.memfd_create("run-batch-turns", os.MFD_CLOEXEC)
        self.path = f"/proc/{os.getpid()}/fd/{self._file}"

    def close(self) -> None:
        """Close the file; who has opened it keeps it."""
        os.close(self._file)


@dataclass(slots=True)
class _ImageMemory:
    cache_bytes: int | None = None
    decode_bytes: int = 0
    lock: int | None = None
    decoded: int = 0
    has_turn: bool = False
    waiting: Callable[[], AbstractContextManager[None]] = nullcontext


_memory = _ImageMemory()


def use_memory(
    cache_bytes: int,
    decode_bytes: int,
    turns: str | None,
    waiting: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> None:
    """Set what images may take of this process's memory from now on; without this, there are no limits but the caches'.

    Args:
        cache_bytes: of images that are kept in case they come again.
        decode_bytes: of images that are decoded without waiting for a turn.
        turns: path of a DecodeTurns; None for no turns.
        waiting: entered while this process waits for its turn.

    Raises:
        OSError: it cannot be opened.
    """
    global _memory
    # Copies that this process forks may share the descriptor: each process has record locks of its own.
    lock = None if turns is None else os.open(turns, os.O_RDWR | os.O_CLOEXEC)
    _memory = _ImageMemory(cache_bytes, decode_bytes, lock, waiting=waiting)


def cache_bytes(most: int) -> int:
    """Bytes that a cache may take which needs `most` at most."""
    return most if _memory.cache_bytes is None else min(most, _memory.cache_bytes)


def need(nbytes: int) -> None:
    """Wait for a turn if an image takes more, with those in use, than this process may have at any time.

    Args:
        nbytes: that the image takes while it is decoded.
    """
    _memory.decoded += nbytes
    if _memory.lock is not None and _memory.decoded > _memory.decode_bytes and not _memory.has_turn:
        with _memory.waiting():
            fcntl.lockf(_memory.lock, fcntl.LOCK_EX)
        _memory.has_turn = True


def drop_decoded() -> None:
    """Tell that no image that was decoded is used any more: the turn of this process ends."""
    _memory.decoded = 0
    if _memory.has_turn and _memory.lock is not None:
        fcntl.lockf(_memory.lock, fcntl.LOCK_UN)
        _memory.has_turn = False
