"""Journals: append-only files that keep finished rows until their shard is committed.

A writer appends to segments of its own, which no other process writes to. A segment is a line that names the format,
then records of length, CRC-32 and payload. The first record names the job that the segment belongs to. Reading stops
without an error at the first torn or damaged record; all records before it are intact. The storage has to support
exclusive create, append and fsync, nothing else. Payloads are bytes that the caller encodes and decodes.
"""

import os
import struct
import threading
import time
import zlib
from collections import defaultdict, deque
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from run_batch.io.files import read_file, sync_folder

SUFFIX = ".journal"
# Age of the rows that a killed process can lose, and of those that a power cut can lose.
WRITE_SECONDS = 0.1
SYNC_SECONDS = 0.5
_MAGIC = b"run-batch journal 1\n"
_RECORD = struct.Struct("<II")
# A segment is removed once all its shards are committed: small ones sooner, but each costs a file create.
_SEGMENT_BYTES = 8 << 20
_RECORD_ITEMS = 1024

Item = TypeVar("Item")


def pack_record(payload: bytes) -> bytes:
    """Frame a payload as a record: length, CRC-32, payload."""
    return _RECORD.pack(len(payload), zlib.crc32(payload)) + payload


def read_segment(path: Path, job_hash: str) -> Iterator[bytes]:
    """Read the payloads of a segment, up to the first torn or damaged record; none from another job's segment.

    A file that does not exist counts as empty: its writer removed it, as its rows are committed.

    Raises:
        OSError: the file cannot be read.
    """
    try:
        content = read_file(path)
    except FileNotFoundError:
        return
    if not content.startswith(_MAGIC):
        return
    records = _records(memoryview(content)[len(_MAGIC) :])
    if next(records, None) == job_hash.encode():
        yield from records


def _records(content: memoryview) -> Iterator[bytes]:
    position = 0
    while position + _RECORD.size <= len(content):
        length, checksum = _RECORD.unpack_from(content, position)
        position += _RECORD.size
        payload = content[position : position + length]
        if len(payload) < length or zlib.crc32(payload) != checksum:
            return
        yield bytes(payload)
        position += length


@dataclass(slots=True)
class _Segment:
    """A segment that is being written.

    Attributes:
        file: descriptor of the file.
        size: bytes written so far.
        unsynced: whether some of them may not be on disk yet.
    """

    path: Path
    file: int
    size: int = 0
    unsynced: bool = False

    def append(self, content: bytes) -> None:
        left = memoryview(content)
        while left:
            left = left[os.write(self.file, left) :]
        self.size += len(content)
        self.unsynced = True

    def sync(self) -> None:
        if self.unsynced:
            os.fsync(self.file)
        self.unsynced = False

    def end(self) -> None:
        self.sync()
        os.close(self.file)


class JournalWriter(Generic[Item]):
    """Appends items to segments in a thread of its own, so that the caller never waits for the disk."""

    def __init__(
        self, folder: Path, name: Callable[[int], str], job_hash: str, encode: Callable[[list[Item]], bytes]
    ) -> None:
        """Start the thread; the first segment is created with the first item.

        Args:
            folder: where segments are created.
            name: gives the prefix of the segment names for a shard, which no other process may use. Shards with
                different prefixes are never in one segment.
            job_hash: identifies the job; `read_segment` skips segments of other jobs.
            encode: makes one payload of several items; called in the thread.
        """
        self._folder, self._name, self._job_hash, self._encode = folder, name, job_hash, encode
        self._pending: deque[tuple[int, Item]] = deque()
        self._settled: set[int] = set()
        self._adopted: deque[tuple[Path, set[int]]] = deque()
        self._segments: dict[Path, set[int]] = {}
        self._open: dict[str, _Segment] = {}
        self._made = 0
        self._synced = time.monotonic()
        self._turns = self._calls = 0
        self._error: Exception | None = None
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)
        self._thread.start()

    def append(self, shard: int, item: Item) -> None:
        """Queue one item: it is written within WRITE_SECONDS, and synced to disk SYNC_SECONDS and an fsync later.

        Raises:
            OSError: an earlier item could not be written.
        """
        if self._error is not None:
            raise self._error
        self._pending.append((shard, item))

    def adopt(self, path: Path, shards: Collection[int]) -> None:
        """Have a segment of an earlier run removed once these shards are settled."""
        self._adopted.append((path, set(shards)))

    def settle(self, shard: int) -> None:
        """Note that a shard is committed: segments that hold only items of such shards are removed."""
        self._settled.add(shard)

    @property
    def turns(self) -> int | None:
        """How often the thread has dealt with all that was queued: ten times a second, if the storage keeps up.

        None once the thread has ended.
        """
        return self._turns if self._thread.is_alive() else None

    @property
    def calls(self) -> int | None:
        """How often the storage has answered the thread, or the thread had nothing to ask; None once it has ended."""
        return self._turns + self._calls if self._thread.is_alive() else None

    def close(self, timeout: float | None = None) -> None:
        """Write and sync what is queued, and end the thread; may be called from any thread, and more than once.

        Args:
            timeout: longest wait for the thread, in seconds; None waits until it ends.

        Raises:
            OSError: an item could not be written.
        """
        self._closing.set()
        while self._thread.is_alive():  # a wait without a limit would look like one for storage that hangs
            self._thread.join(1.0 if timeout is None else timeout)
            if timeout is not None:
                break
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            while not self._closing.wait(WRITE_SECONDS):
                self._write_pending()
                if time.monotonic() - self._synced >= SYNC_SECONDS:
                    for segment in self._open.values():
                        segment.sync()
                        self._calls += 1
                    self._synced = time.monotonic()
                self._remove_settled()
                self._turns += 1
            self._write_pending()
            while self._open:
                self._open.popitem()[1].end()
                self._calls += 1
            self._remove_settled()
        except Exception as error:
            self._error = error

    def _write_pending(self) -> None:
        while self._pending:
            taken = [self._pending.popleft() for _ in range(min(len(self._pending), _RECORD_ITEMS))]
            parts: defaultdict[str, list[tuple[int, Item]]] = defaultdict(list)
            for shard, item in taken:
                if shard not in self._settled:
                    parts[self._name(shard)].append((shard, item))
            for name, part in parts.items():
                segment = self._open.get(name) or self._begin_segment(name)
                self._segments[segment.path].update(shard for shard, _ in part)
                segment.append(pack_record(self._encode([item for _, item in part])))
                self._calls += 1
                if segment.size >= _SEGMENT_BYTES:
                    self._open.pop(name).end()

    def _begin_segment(self, name: str) -> _Segment:
        path = self._folder / f"{name}-{self._made:05d}{SUFFIX}"
        self._made += 1
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o666)
        segment = self._open[name] = _Segment(path, file)
        self._segments[path] = set()
        segment.append(_MAGIC + pack_record(self._job_hash.encode()))
        sync_folder(self._folder)
        return segment

    def _remove_settled(self) -> None:
        while self._adopted:
            path, shards = self._adopted.popleft()
            self._segments[path] = shards
        if not self._settled:
            return
        # The newest one stays open even if all its shards are settled: the next items most likely go to it.
        kept = next(reversed(self._open.values())).path if self._open else None
        for path, shards in list(self._segments.items()):
            shards -= self._settled
            if not shards and path != kept:
                for name in [name for name, segment in self._open.items() if segment.path == path]:
                    os.close(self._open.pop(name).file)
                path.unlink(missing_ok=True)
                self._calls += 1
                del self._segments[path]
