"""Shards of results: Parquet files that appear complete or not at all.

A shard is written under `.run_batch/`, synced to disk, and renamed to its place; the rename is atomic on every POSIX
file system. What else a run keeps lies in `.run_batch/` too, which readers of data sets skip.
"""

import os
import re
import socket
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

RUN_FOLDER = ".run_batch"
SUCCESS = "_SUCCESS"
_KEYS = b"run_batch."
_SHARD_NAME = re.compile(r"part-(\d{6,})\.parquet")


class ShardError(Exception):
    """A committed shard cannot be read; the message names it and what to do."""


class ShardStore:
    """The results folder of one job.

    Attributes:
        run_folder: what all processes that work on the job share.
        own_folder: in it, or the same: what the processes of one name alone write to.
    """

    def __init__(self, folder: Path, own: str = "") -> None:
        """Args:
        own: path of `own_folder` below `run_folder`.
        """
        self.folder = folder
        self.run_folder = folder / RUN_FOLDER
        self.own_folder = self.run_folder / own

    def is_writable(self) -> bool:
        """Whether `create` can be expected to work: tried with a file that goes again at once."""
        place = self.folder
        while not place.exists() and place != place.parent:
            place = place.parent
        try:
            with tempfile.TemporaryFile(dir=place):
                return True
        except OSError:
            return False

    def create(self) -> list[Path]:
        """Make the folder where it is missing; the folders that were made, outermost first.

        Raises:
            OSError: it cannot be made.
        """
        missing = [folder for folder in (*reversed(self.own_folder.parents), self.own_folder) if not folder.exists()]
        for folder in missing:
            folder.mkdir(exist_ok=True)
            sync_folder(folder.parent)
        return missing

    def path(self, index: int) -> Path:
        return self.folder / f"part-{index:06d}.parquet"

    def committed(self) -> list[int]:
        """Indices of the shards that are there, in order."""
        if not self.folder.is_dir():
            return []
        matches = (_SHARD_NAME.fullmatch(entry.name) for entry in os.scandir(self.folder))
        return sorted(int(match[1]) for match in matches if match)

    def is_committed(self, index: int) -> bool:
        return self.path(index).exists()

    def metadata(self, index: int) -> dict[str, str]:
        """What `commit` kept in the footer of a shard.

        Raises:
            ShardError: the file cannot be read as Parquet.
        """
        with _reading(self.path(index)):
            keys: Mapping[bytes, bytes] = pq.read_metadata(self.path(index)).metadata or {}
        return {key.decode(): value.decode() for key, value in keys.items() if key.startswith(_KEYS)}

    def read(self, index: int, columns: list[str] | None = None) -> pa.Table:
        """A committed shard.

        Raises:
            ShardError: the file cannot be read as Parquet, or is damaged.
        """
        with _reading(self.path(index)):
            return pq.ParquetFile(self.path(index), page_checksum_verification=True).read(columns)

    def commit(self, index: int, table: pa.Table, metadata: Mapping[str, str]) -> None:
        """Write one shard and make it appear, in the place of an earlier attempt; afterwards it is there after a
        power cut too.

        Args:
            table: the shard's rows, in order.
            metadata: what to keep in the file's footer; its keys begin with `run_batch.`.

        Raises:
            OSError: the disk is full, or the folder is gone or read-only.
        """
        keys = {key.encode(): value.encode() for key, value in metadata.items()}
        table = table.replace_schema_metadata({**(table.schema.metadata or {}), **keys})
        temporary = self.own_folder / f"{self.path(index).name}.{socket.gethostname()}-{os.getpid()}.tmp"
        try:
            with open(temporary, "wb") as file:
                pq.write_table(table, file, write_page_checksum=True)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, self.path(index))
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync_folder(self.folder)

    def discard_unfinished(self) -> None:
        """Remove the shards that a killed process left half written in `own_folder`."""
        for leftover in self.own_folder.glob("part-*.tmp"):
            leftover.unlink(missing_ok=True)

    def mark_success(self) -> None:
        """Write `_SUCCESS`: all shards are there."""
        replace_file(self.folder / SUCCESS, b"")
        sync_folder(self.folder)

    def is_complete(self) -> bool:
        return (self.folder / SUCCESS).exists()


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        raise ShardError(
            f"{path} cannot be read: {' '.join(str(error).split())}. Once it is removed (_SUCCESS with it), the same "
            "command generates its rows again"
        ) from None


def replace_file(path: Path, content: bytes, durable: bool = True) -> None:
    """Write a small file so that readers see the old or the new content, never a part.

    Args:
        durable: wait until the content is on disk.
    """
    temporary = path.with_name(f".{path.name}.{socket.gethostname()}-{os.getpid()}.tmp")
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
