"""A note of the rows that the engine holds, for the case that they take the whole process down with them.

One number of eight bytes for each row, written in place before the engine sees the row. The operating system keeps it
when the process dies, so nothing waits for the disk; a power cut may lose it, which no row causes.
"""

import os
import struct
from pathlib import Path

_SLOT = struct.Struct("<q")


class RunningRows:
    """The note of this process. An empty place holds 0, any other its row's index plus 1."""

    def __init__(self, path: Path, places: int) -> None:
        """Raises:
        OSError: the file cannot be written.
        """
        self._path = path
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
        # All blocks now: later writes need no room on the disk.
        os.write(self._file, bytes(_SLOT.size * places))
        self._places: dict[int, int] = {}
        self._free = list(range(places - 1, -1, -1))

    def add(self, row: int) -> None:
        place = self._free.pop() if self._free else len(self._places)
        self._places[row] = place
        os.pwrite(self._file, _SLOT.pack(row + 1), place * _SLOT.size)

    def remove(self, row: int) -> None:
        place = self._places.pop(row)
        self._free.append(place)
        os.pwrite(self._file, _SLOT.pack(0), place * _SLOT.size)

    def close(self) -> None:
        """This process ends in good order: the note goes."""
        os.close(self._file)
        self._path.unlink(missing_ok=True)


def read_running(path: Path) -> list[int] | None:
    """The rows that a process held when it died; None if none died."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    whole = len(content) - len(content) % _SLOT.size
    return sorted(row - 1 for (row,) in _SLOT.iter_unpack(content[:whole]) if row > 0)
