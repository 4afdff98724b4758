"""A file that tells the next process which rows were in the engine when this process died.

It has one slot of eight bytes for each row, written in place before the engine gets the row. Writes are not synced: the
operating system keeps them when the process dies. A power cut may lose them, but no row causes a power cut.
"""

import os
import struct
from pathlib import Path

from run_batch.io.files import is_same_file, read_file

_SLOT = struct.Struct("<q")


class RunningRows:
    """The file of this process. An empty slot holds 0, any other the index of its row plus 1."""

    def __init__(self, path: Path, slots: int) -> None:
        """Create the file, or empty one that is there.

        Args:
            slots: rows for which there is room; the file grows when there are more.

        Raises:
            OSError: the file cannot be written.
        """
        self._path = path
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
        # Allocates the blocks now: later writes need no free space on the disk.
        os.write(self._file, bytes(_SLOT.size * slots))
        self._slots: dict[int, int] = {}
        self._free = list(range(slots - 1, -1, -1))

    def add(self, row: int) -> None:
        """Write down a row.

        Raises:
            OSError: the file cannot be written.
        """
        slot = self._free.pop() if self._free else len(self._slots)
        self._slots[row] = slot
        os.pwrite(self._file, _SLOT.pack(row + 1), slot * _SLOT.size)

    def remove(self, row: int) -> None:
        """Empty the slot of a row.

        Raises:
            OSError: the file cannot be written.
        """
        slot = self._slots.pop(row)
        self._free.append(slot)
        os.pwrite(self._file, _SLOT.pack(0), slot * _SLOT.size)

    def close(self) -> None:
        """Remove the file: this process exits, so no row has killed it. That of a process which has taken over stays.

        Raises:
            OSError: the file cannot be removed.
        """
        is_ours = is_same_file(self._path, self._file)
        os.close(self._file)
        if is_ours:
            self._path.unlink(missing_ok=True)


def read_running(path: Path) -> list[int] | None:
    """The rows that were in the engine when a process died, in ascending order; None if none has died.

    Raises:
        OSError: the file cannot be read.
    """
    try:
        content = read_file(path)
    except FileNotFoundError:
        return None
    whole = len(content) - len(content) % _SLOT.size
    return sorted(row - 1 for (row,) in _SLOT.iter_unpack(content[:whole]) if row > 0)
