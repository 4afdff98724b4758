"""Shards of results: Parquet files that appear complete or not at all.

A shard is written under `_run/`, synced to disk, and renamed to its place; the rename is atomic on every POSIX file
system. What else a run keeps lies in `_run/` too, which readers of data sets skip.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

RUN_FOLDER = "_run"
SUCCESS = "_SUCCESS"
_SHARD_NAME = re.compile(r"part-(\d{5,})\.parquet")
_FAILED_KEY = b"run_batch.rows_failed"


@dataclass(frozen=True, slots=True)
class ShardInfo:
    """What a committed shard holds.

    Attributes:
        rows: number of rows.
        failed: rows whose `error` is not null.
    """

    rows: int
    failed: int


class ShardStore:
    """The results folder of one job."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.run_folder = folder / RUN_FOLDER

    def is_writable(self) -> bool:
        """Whether `create` can be expected to work, without making anything."""
        place = self.folder
        while not place.exists() and place != place.parent:
            place = place.parent
        return place.is_dir() and os.access(place, os.W_OK | os.X_OK)

    def create(self) -> None:
        """Make the folder where it is missing.

        Raises:
            OSError: it cannot be made.
        """
        self.run_folder.mkdir(parents=True, exist_ok=True)

    def path(self, index: int) -> Path:
        return self.folder / f"part-{index:05d}.parquet"

    def committed(self) -> list[int]:
        """Indices of the shards that are there, in order."""
        if not self.folder.is_dir():
            return []
        matches = (_SHARD_NAME.fullmatch(entry.name) for entry in os.scandir(self.folder))
        return sorted(int(match[1]) for match in matches if match)

    def info(self, index: int) -> ShardInfo:
        """Counts of a committed shard, from its footer.

        Raises:
            OSError, pyarrow.ArrowException: the file cannot be read as Parquet.
        """
        metadata = pq.read_metadata(self.path(index))
        keys: Mapping[bytes, bytes] = metadata.metadata or {}
        return ShardInfo(metadata.num_rows, int(keys.get(_FAILED_KEY, b"0")))

    def commit(self, index: int, table: pa.Table, metadata: Mapping[str, str]) -> None:
        """Write one shard and make it appear; afterwards it is there after a power cut too.

        Args:
            table: the shard's rows, in order, with a column `error`.
            metadata: what else to keep in the file's metadata.

        Raises:
            OSError: the disk is full, or the folder is gone or read-only.
        """
        failed = len(table) - table["error"].null_count
        keys = {key.encode(): value.encode() for key, value in metadata.items()}
        keys[_FAILED_KEY] = str(failed).encode()
        table = table.replace_schema_metadata({**(table.schema.metadata or {}), **keys})
        temporary = self.run_folder / f"{self.path(index).name}.{os.getpid()}.tmp"
        try:
            with open(temporary, "wb") as file:
                pq.write_table(table, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, self.path(index))
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync_folder(self.folder)

    def discard_unfinished(self) -> None:
        """Remove what a killed run left half written."""
        for leftover in self.run_folder.glob("*.tmp"):
            leftover.unlink(missing_ok=True)

    def mark_success(self) -> None:
        """Write `_SUCCESS`: all shards are there."""
        replace_file(self.folder / SUCCESS, b"")
        sync_folder(self.folder)

    def is_complete(self) -> bool:
        return (self.folder / SUCCESS).exists()


def replace_file(path: Path, content: bytes, durable: bool = True) -> None:
    """Write a small file so that readers see the old or the new content, never a part.

    Args:
        durable: wait until the content is on disk.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with open(temporary, "wb") as file:
        file.write(content)
        if durable:
            file.flush()
            os.fsync(file.fileno())
    os.replace(temporary, path)


def sync_folder(folder: Path) -> None:
    """Make renames in `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
