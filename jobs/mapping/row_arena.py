"""Memory that a worker process and its pool both see: mapped rows cross in it without being copied.

It is one memory file (memfd), which both map once. The mappers of the worker write their arrays into it, and a message
to the pool names the places. Memory that is used again, in place of new one, costs neither process page faults: they
took more than a third of the time of a row of 8 MB.

Each message has a ticket, a byte at the beginning of the file. The pool sets it when it has dropped the last tensor of
the message; a place is free again once no array of the worker and no message uses it. So nothing is sent back, and the
pool needs no lock, wherever a tensor is dropped. The file is as large as all rows may become; its memory is what is in
use, and some that is kept for what comes next. The kernel frees all of it when the processes die.
"""

import collections
import mmap
import os
from bisect import bisect_right, insort
from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

import numpy as np

from run_batch.jobs.mapping.free_ranges import FreeRanges

# Messages that the pool may hold at a time; one more is sent in a memory file of its own.
_TICKETS = 1 << 16
# What is copied together lies at multiples of so many bytes.
_ALIGNMENT = 64


class Lent(NamedTuple):
    """Where a message's buffers are.

    Attributes:
        ticket: of the message.
        offsets: of each buffer in the file.
    """

    ticket: int
    offsets: list[int]


class RowArena:
    """The worker's side. Its main thread calls it; arrays may be dropped in any thread.

    Attributes:
        descriptor: of the file.
        nbytes: of the file.
    """

    def __init__(self, most_bytes: int, kept_bytes: int) -> None:
        """Create the file.

        Args:
            most_bytes: that rows may take in it.
            kept_bytes: of memory that is free, and kept.

        Raises:
            OSError, ValueError: this process may not have so large a file, or so much address space.
        """
        self.nbytes = _TICKETS + _whole_pages(most_bytes)
        self.descriptor = os.memfd_create("run-batch-arena", os.MFD_CLOEXEC)
        os.ftruncate(self.descriptor, self.nbytes)
        self._memory = mmap.mmap(self.descriptor, self.nbytes)
        self._address = _address(np.frombuffer(self._memory, np.uint8))
        self._kept_bytes = kept_bytes - kept_bytes % mmap.PAGESIZE
        self._free = FreeRanges(_TICKETS, self.nbytes, self._give_back)
        # Of places in use: their offsets in order, and for each how large it is, and how many use it.
        self._starts: list[int] = []
        self._sizes: dict[int, int] = {}
        self._users: dict[int, int] = {}
        # Arrays are dropped wherever their last user is, also in the midst of what is done here.
        self._dropped: collections.deque[int] = collections.deque()
        self._lent: dict[int, set[int]] = {}
        self._most_tickets = 0
        self._free_tickets: list[int] = []

    def allocate(self, nbytes: int) -> np.ndarray | None:
        """Memory for an array, uint8 (nbytes), in use as long as it or a view of it exists; None where none is free."""
        self._collect()
        start = self._free.take(_whole_pages(nbytes))
        if start is None:
            return None
        insort(self._starts, start)
        self._sizes[start], self._users[start] = _whole_pages(nbytes), 1
        return np.asarray(_Place(self._address + start, nbytes, self, start))

    def lend(self, buffers: Sequence[memoryview]) -> Lent | None:
        """Note that a message with these buffers is sent; those that lie elsewhere are copied.

        Returns:
            None where there is no memory for the copies, or no ticket.
        """
        self._collect()
        arrays = [np.frombuffer(buffer, np.uint8) for buffer in buffers]
        copies = self._copy([array for array in arrays if self._place_of(array) is None])
        ticket = self._new_ticket() if copies is not None else None
        if copies is None or ticket is None:
            return None
        arrays = [copies.pop(0) if self._place_of(array) is None else array for array in arrays]
        places = {place for array in arrays if (place := self._place_of(array)) is not None}
        for place in places:
            self._users[place] += 1
        self._lent[ticket] = places
        return Lent(ticket, [_address(array) - self._address if len(array) else 0 for array in arrays])

    @property
    def may_free(self) -> bool:
        """Whether messages are out, or free memory is kept."""
        return bool(self._lent or self._dropped or self._free.resident)

    def free(self, keep: bool) -> None:
        """Free what nobody uses any more, and give it to the kernel, but for what is kept, if any is to be."""
        self._collect()
        if not keep:
            self._free.trim(0)

    def _copy(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray] | None:
        """Copies that lie in one place after each other; None where there is no memory."""
        begins = list(accumulate((aligned(len(array)) for array in arrays), initial=0))
        place = self.allocate(max(1, begins[-1])) if arrays else np.empty(0, np.uint8)
        if place is None:
            return None
        copies = [place[begin : begin + len(array)] for begin, array in zip(begins, arrays, strict=False)]
        for copy, array in zip(copies, arrays, strict=True):
            copy[:] = array
        return copies

    def _place_of(self, array: np.ndarray) -> int | None:
        """The offset of the place in use where an array lies; None for one elsewhere, and for no bytes."""
        offset = _address(array) - self._address
        if not len(array) or not 0 <= offset < self.nbytes:
            return None
        return self._starts[bisect_right(self._starts, offset) - 1]

    def _new_ticket(self) -> int | None:
        if self._free_tickets:
            return self._free_tickets.pop()
        if self._most_tickets == _TICKETS:
            return None
        self._most_tickets += 1
        return self._most_tickets - 1

    def _collect(self) -> None:
        """Free what nobody uses any more."""
        tickets = self._memory[: self._most_tickets]
        ticket = tickets.find(1)
        while ticket >= 0:
            self._memory[ticket] = 0
            self._free_tickets.append(ticket)
            for place in self._lent.pop(ticket):
                self._drop(place)
            ticket = tickets.find(1, ticket + 1)
        while self._dropped:
            self._drop(self._dropped.popleft())
        self._free.trim(self._kept_bytes)

    def _drop(self, place: int) -> None:
        self._users[place] -= 1
        if not self._users[place]:
            del self._users[place], self._starts[bisect_right(self._starts, place) - 1]
            self._free.put(place, self._sizes.pop(place))

    def _give_back(self, start: int, nbytes: int) -> None:
        self._memory.madvise(mmap.MADV_REMOVE, start, nbytes)


class BorrowedArena:
    """The pool's side."""

    def __init__(self, descriptor: int, nbytes: int) -> None:
        """Map the file that a worker has created.

        Raises:
            OSError, ValueError: this process may not have so much address space.
        """
        self.memory = mmap.mmap(descriptor, nbytes)
        self._address = _address(np.frombuffer(self.memory, np.uint8))
        self._nbytes = nbytes

    def views(self, ticket: int, offsets: Sequence[int], sizes: Sequence[int]) -> list[memoryview]:
        """The buffers of a message, whose places stay in use as long as one of them exists."""
        whole = np.asarray(_Message(self._address, self._nbytes, self.memory, ticket)).data
        return [whole[offset : offset + size] for offset, size in zip(offsets, sizes, strict=True)]


class _Memory:
    """Memory that NumPy takes as an array; the array and its views hold this object."""

    __slots__ = ("__array_interface__",)

    def __init__(self, address: int, nbytes: int) -> None:
        self.__array_interface__ = {"data": (address, False), "shape": (nbytes,), "typestr": "|u1", "version": 3}


class _Place(_Memory):
    __slots__ = ("_arena", "_start")

    def __init__(self, address: int, nbytes: int, arena: RowArena, start: int) -> None:
        super().__init__(address, nbytes)
        self._arena, self._start = arena, start

    def __del__(self) -> None:
        self._arena._dropped.append(self._start)


class _Message(_Memory):
    __slots__ = ("_memory", "_process", "_ticket")

    def __init__(self, address: int, nbytes: int, memory: mmap.mmap, ticket: int) -> None:
        super().__init__(address, nbytes)
        self._memory, self._ticket, self._process = memory, ticket, os.getpid()

    def __del__(self) -> None:
        # A fork, such as vLLM's engine may be, has copies of the rows that waited, and drops them when it likes.
        if os.getpid() == self._process:
            self._memory[self._ticket] = 1


def _address(array: np.ndarray) -> int:
    return int(array.__array_interface__["data"][0])


def aligned(nbytes: int, unit: int = _ALIGNMENT) -> int:
    """The least multiple of `unit` that is not less."""
    return nbytes + -nbytes % unit


def _whole_pages(nbytes: int) -> int:
    return aligned(nbytes, mmap.PAGESIZE)
