"""Which parts of a memory file are free, and which of these have memory."""

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(slots=True)
class _Range:
    """A free range of bytes; the first `resident` of them have memory."""

    start: int
    stop: int
    resident: int

    @property
    def is_resident(self) -> bool:
        return self.resident == self.stop - self.start


class FreeRanges:
    """The free ranges of a memory file, all multiples of pages.

    Attributes:
        resident: free bytes that have memory.
    """

    def __init__(self, start: int, stop: int, give_back: Callable[[int, int], None]) -> None:
        """Begin with all bytes from `start` to `stop`, which have no memory.

        Args:
            give_back: gives the memory of so many bytes, from an offset on, back to the kernel.
        """
        self.resident = 0
        self._give_back = give_back
        # In order. Neighbours are merged unless bytes with memory would come after bytes without.
        self._ranges = [_Range(start, stop, 0)]

    def take(self, nbytes: int) -> int | None:
        """The offset of `nbytes` bytes that are free no more, the first ones that fit; None where there are none."""
        index = next((i for i, free in enumerate(self._ranges) if free.stop - free.start >= nbytes), None)
        if index is None:
            return None
        free = self._ranges[index]
        start, resident = free.start, min(free.resident, nbytes)
        free.start, free.resident, self.resident = start + nbytes, free.resident - resident, self.resident - resident
        if free.start == free.stop:
            del self._ranges[index]
        return start

    def put(self, start: int, nbytes: int) -> None:
        """Free `nbytes` bytes from `start` on, all of which have memory."""
        index = bisect_left(self._ranges, start, key=lambda free: free.start)
        self._ranges.insert(index, _Range(start, start + nbytes, nbytes))
        self.resident += nbytes
        self._merge(index)
        self._merge(index - 1)

    def trim(self, most: int) -> None:
        """Give memory back until the free bytes that have some are `most` or fewer."""
        while self.resident > most:
            index, free = max(enumerate(self._ranges), key=lambda item: item[1].resident)
            nbytes = min(free.resident, self.resident - most)
            self._give_back(free.start + free.resident - nbytes, nbytes)
            free.resident, self.resident = free.resident - nbytes, self.resident - nbytes
            self._merge(index)
            self._merge(index - 1)

    def _merge(self, index: int) -> None:
        """Merge a range with the one after it, if both touch."""
        if not 0 <= index < len(self._ranges) - 1:
            return
        free, after = self._ranges[index : index + 2]
        if free.stop == after.start and (free.is_resident or not after.resident):
            free.stop, free.resident = after.stop, free.resident + after.resident
            del self._ranges[index + 1]
