"""Shows the pool what a worker process is doing, and with which rows, in a page of memory that both can see.

The worker writes a few bytes when it begins something; the pool looks once a second and counts for how long they stay
the same (row_deadlines.py). So a worker that hangs in whatever code need not do anything to be noticed.
"""

import contextlib
import mmap
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum, auto

_BYTES = 1024
# Count of the things begun so far, activity, first row, rows, bytes of the text that follows.
_HEADER = struct.Struct("<QQqQQ")
_TEXT_BYTES = _BYTES - _HEADER.size
# How the words begin for a file that is read, and for no other thing.
READING = "reading"
MAPPING_ROW = "mapping the row"


class Activity(IntEnum):
    """What a worker does."""

    IDLE = 0  # it waits: for rows, for a download, for the pool
    READING = auto()  # files below the media root
    MAPPING = auto()  # anything else


@dataclass(frozen=True, slots=True)
class Stage:
    """Something that a worker has begun.

    Attributes:
        number: another one for each thing that it begins.
        row: index of the first row.
        rows: how many rows it does together.
        what: words for it, as the beginning of a sentence.
    """

    number: int
    activity: Activity
    row: int
    rows: int
    what: str


class RowClock:
    """What this process is doing; the pool sees it once it has the memory of `share`."""

    def __init__(self) -> None:
        self._page: bytearray | mmap.mmap = bytearray(_BYTES)
        self._number = 0
        self._row = 0

    def share(self) -> int:
        """Put the page into memory that other processes of this user can map; its descriptor, which stays open."""
        descriptor = os.memfd_create("run-batch-clock", os.MFD_CLOEXEC)
        os.ftruncate(descriptor, _BYTES)
        self._page = mmap.mmap(descriptor, _BYTES)
        return descriptor

    @property
    def stage(self) -> Stage:
        """What this process is doing."""
        return read_stage(self._page)

    def begin(self, row: int, rows: int, what: str, activity: Activity = Activity.MAPPING) -> None:
        """Begin something with `rows` rows from `row` on."""
        self._number, self._row = self._number + 1, row
        text = what.encode(errors="replace")[:_TEXT_BYTES]
        _HEADER.pack_into(self._page, 0, self._number, activity, row, rows, len(text))
        self._page[_HEADER.size : _HEADER.size + len(text)] = text

    def rest(self) -> None:
        """Wait for others, for as long as that takes."""
        self.begin(self._row, 0, "", Activity.IDLE)

    @contextlib.contextmanager
    def reading(self, what: str) -> Iterator[None]:
        """Read a file for the row that was begun last, inside."""
        self.begin(self._row, 1, f"{READING} {what}", Activity.READING)
        try:
            yield
        finally:
            self.begin(self._row, 1, MAPPING_ROW)

    @contextlib.contextmanager
    def resting(self) -> Iterator[None]:
        """Wait for others, inside; what was begun before goes on behind it, with a new time."""
        before = read_stage(self._page)
        self.rest()
        try:
            yield
        finally:
            self.begin(before.row, before.rows, before.what, before.activity)


def read_stage(page: bytearray | mmap.mmap) -> Stage:
    """What the worker of a page is doing."""
    number, activity, row, rows, length = _HEADER.unpack_from(page)
    text = page[_HEADER.size : _HEADER.size + min(length, _TEXT_BYTES)]
    return Stage(number, Activity(activity), row, rows, text.decode(errors="replace"))


def open_page(pid: int, descriptor: int) -> mmap.mmap:
    """Map the page that a process has shared under a descriptor of its own.

    Raises:
        OSError: the process has died.
    """
    with open(f"/proc/{pid}/fd/{descriptor}", "rb") as file:
        return mmap.mmap(file.fileno(), _BYTES, access=mmap.ACCESS_READ)


@dataclass(slots=True)
class SeenClock:
    """The clock of a worker as the pool has seen it last.

    Attributes:
        page: None until the worker takes rows.
        stage: what it did then; None while it loads.
        since: when it was seen first to do that, by the pool's clock; None before it was looked at.
        has_mapped: it has mapped rows.
    """

    page: mmap.mmap | None = None
    stage: Stage | None = None
    since: float | None = None
    has_mapped: bool = False

    def look(self, now: float) -> float:
        """Look at the page; seconds since the worker was seen first to do what it does."""
        stage = read_stage(self.page) if self.page is not None else None
        if self.since is None or stage != self.stage:
            self.stage, self.since = stage, now
        return now - self.since


# Of this process: a worker is one, and so is a process that maps rows itself.
clock = RowClock()
