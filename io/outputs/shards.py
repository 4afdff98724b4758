"""Shards of results: Parquet files that appear complete or not at all.

A shard is written under `.run_batch/`, synced to disk, and renamed into place; the rename is atomic on every POSIX file
system. All other files of a run lie in `.run_batch/` too, which dataset readers skip.
"""

import functools
import os
import re
import socket
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from run_batch.io.files import list_names, replace_file, sync_folder
from run_batch.io.outputs.shard_file import write_shard
from run_batch.io.transient import may_pass, retry

RUN_FOLDER = ".run_batch"
SUCCESS = "_SUCCESS"
_KEYS = b"run_batch."
_BATCH_ROWS = 1024
_SHARD_NAME = re.compile(r"part-(\d{6,})\.parquet")
# Names from before bookkeeping moved to `.run_batch/` and shards got six digits.
_EARLIER_JOB_FILE = "_run/job.json"
_EARLIER_SHARD_NAME = re.compile(r"part-\d{5}\.parquet")


class ShardError(Exception):
    """A committed shard cannot be read; the message names it and says what to do."""


class DamagedShardError(ShardError):
    """A committed shard is truncated or damaged, as against storage that fails.

    Attributes:
        reason: what is wrong with it.
    """

    def __init__(self, path: Path, reason: str) -> None:
        self.reason = reason
        super().__init__(
            f"{path} cannot be read: {reason}. Once it is removed, run-batch --config generates its rows again"
        )


def is_shard_name(name: str) -> bool:
    """Whether a file of this name in a results folder is a shard."""
    return _SHARD_NAME.fullmatch(name) is not None


class ShardStore:
    """The results folder of one job.

    Attributes:
        folder: the results folder; holds the shards and `_SUCCESS`.
        run_folder: the folder of all other files, shared by all processes that work on the job.
        own_folder: the folder that unfinished shards are written to: `run_folder`, or one below it for each share.
        journal_folder: the folder of the journals of all processes; made with the first one.
    """

    def __init__(self, folder: Path, own: str = "") -> None:
        """Name the folders; `create` makes them.

        Args:
            own: path of `own_folder` relative to `run_folder`.
        """
        self.folder = folder
        self.run_folder = folder / RUN_FOLDER
        self.own_folder = self.run_folder / own
        self.journal_folder = self.run_folder / "journal"

    def is_writable(self) -> bool:
        """Whether `create` is likely to succeed; tried with a temporary file that has no name.

        Raises:
            OSError: the storage fails in a way that may pass.
        """
        place = self.folder
        while not retry(place.exists) and place != place.parent:
            place = place.parent

        def write() -> None:
            with tempfile.TemporaryFile(dir=place):
                pass

        try:
            retry(write)
        except OSError as error:
            if may_pass(error):
                raise
            return False
        return True

    def is_of_earlier_layout(self) -> bool:
        """Whether an earlier version wrote the folder: bookkeeping in `_run/`, or shards numbered with five digits.

        Raises:
            OSError: the folder cannot be read.
        """
        if not retry(self.folder.is_dir):
            return False
        return (self.folder / _EARLIER_JOB_FILE).exists() or any(
            _EARLIER_SHARD_NAME.fullmatch(name) for name in list_names(self.folder)
        )

    def create(self) -> list[Path]:
        """Create the folders that are missing, and make them survive a power cut.

        Returns:
            The folders that were created, outermost first.

        Raises:
            OSError: a folder cannot be created.
        """
        folders = (*reversed(self.own_folder.parents), self.own_folder)
        missing = [folder for folder in folders if not retry(folder.exists)]
        for folder in missing:
            retry(functools.partial(folder.mkdir, exist_ok=True))
            sync_folder(folder.parent)
        return missing

    def path(self, index: int) -> Path:
        """Path of a shard, committed or not."""
        return self.folder / f"part-{index:06d}.parquet"

    def committed(self) -> list[int]:
        """Indices of the committed shards, in order.

        Raises:
            OSError: the folder cannot be read.
        """
        try:
            names = list_names(self.folder)
        except (FileNotFoundError, NotADirectoryError):
            return []
        matches = map(_SHARD_NAME.fullmatch, names)
        return sorted(int(match[1]) for match in matches if match)

    def is_committed(self, index: int) -> bool:
        """Whether a shard is committed."""
        return retry(self.path(index).exists)

    def metadata(self, index: int) -> dict[str, str]:
        """Read what `commit` added to the footer of a shard.

        Raises:
            ShardError: the file cannot be read as Parquet.
        """
        with _reading(self.path(index)):
            keys: Mapping[bytes, bytes] = retry(lambda: pq.read_metadata(self.path(index))).metadata or {}
        return {key.decode(): value.decode() for key, value in keys.items() if key.startswith(_KEYS)}

    def num_rows(self, index: int) -> int:
        """Read from its footer how many rows a shard has.

        Raises:
            ShardError: the file cannot be read as Parquet.
        """
        with _reading(self.path(index)):
            rows: int = pq.read_metadata(self.path(index)).num_rows
            return rows

    def schema(self, index: int) -> pa.Schema:
        """Read from its footer which columns a shard has.

        Raises:
            ShardError: the file cannot be read as Parquet.
        """
        with _reading(self.path(index)):
            return retry(lambda: pq.read_schema(self.path(index)))

    def read(self, index: int, columns: Collection[str] | None = None) -> pa.Table:
        """Read a committed shard.

        Args:
            columns: read those of these columns that the shard has; all when left out.

        Raises:
            ShardError: the file cannot be read as Parquet, or is damaged.
        """
        with _reading(self.path(index)):
            file = retry(lambda: pq.ParquetFile(self.path(index), page_checksum_verification=True))
            return file.read([name for name in file.schema_arrow.names if columns is None or name in columns])

    def batches(
        self, index: int, columns: Collection[str] | None = None, batch_rows: int = _BATCH_ROWS
    ) -> Iterator[pa.RecordBatch]:
        """Read a committed shard in batches, in order.

        Args:
            columns: as in `read`.
            batch_rows: rows of a batch at most.

        Raises:
            ShardError: the file cannot be read as Parquet, or is damaged.
        """
        with _reading(self.path(index)):
            file = retry(lambda: pq.ParquetFile(self.path(index), page_checksum_verification=True))
            names = [name for name in file.schema_arrow.names if columns is None or name in columns]
            yield from file.iter_batches(batch_rows, columns=names)

    def count_rows(self, index: int, columns: Collection[str] | None = None) -> int:
        """Read a committed shard to its end; how many rows it has.

        Args:
            columns: as in `read`.

        Raises:
            ShardError: the file cannot be read as Parquet, or is damaged.
        """
        return sum(batch.num_rows for batch in self.batches(index, columns))

    def set_aside(self, index: int) -> None:
        """Move a damaged shard out of the results, into a folder of `run_folder`.

        Raises:
            OSError: it cannot be moved.
        """
        folder = self.run_folder / "damaged"
        folder.mkdir(exist_ok=True)
        os.replace(self.path(index), folder / self.path(index).name)
        sync_folder(self.folder)

    def commit(self, index: int, table: pa.Table, metadata: Mapping[str, str], compression: str = "zstd") -> None:
        """Write a shard whose rows are at hand; see `commit_tables`."""
        self.commit_tables(index, lambda: [table], lambda: metadata, compression)

    def commit_tables(
        self,
        index: int,
        tables: Callable[[], Iterable[pa.Table]],
        metadata: Callable[[], Mapping[str, str]],
        compression: str = "zstd",
        before: Callable[[], None] = lambda: None,
    ) -> None:
        """Write a shard and rename it into place, over an earlier attempt; it survives a power cut from then on. It
        is written anew where the storage fails in a way that may pass.

        Args:
            tables: gives the rows of the shard, in order; asked again where it is written anew.
            metadata: gives entries for the footer, once all rows are written; their keys begin with `run_batch.`.
            compression: see `write_shard`.
            before: called when the shard is written, before it appears.

        Raises:
            OSError: the disk is full, or the folder is gone or read-only.
        """
        path = self.path(index)
        temporary = self.own_folder / f"{path.name}.{socket.gethostname()}-{os.getpid()}.tmp"

        def replace() -> None:
            with open(temporary, "wb") as file:
                write_shard(tables(), file, compression, metadata)
                file.flush()
                os.fsync(file.fileno())
            before()
            os.replace(temporary, path)

        try:
            retry(replace)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync_folder(self.folder)

    def discard_unfinished(self) -> None:
        """Remove the unfinished shards that a killed process left in `own_folder`."""
        for leftover in self.own_folder.glob("part-*.tmp"):
            leftover.unlink(missing_ok=True)

    def mark_success(self) -> None:
        """Write `_SUCCESS`, which says that all shards are committed.

        Raises:
            OSError: it cannot be written.
        """
        replace_file(self.folder / SUCCESS, b"")
        sync_folder(self.folder)

    def unmark_success(self) -> None:
        """Remove `_SUCCESS`: a shard is not there any more.

        Raises:
            OSError: it cannot be removed.
        """
        (self.folder / SUCCESS).unlink(missing_ok=True)
        sync_folder(self.folder)

    def is_complete(self) -> bool:
        """Whether `_SUCCESS` is there."""
        return retry((self.folder / SUCCESS).exists)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        reason = " ".join(str(error).split())
        # Arrow raises an OSError of its own, without a number, for content that it cannot read.
        if isinstance(error, OSError) and error.errno is not None:
            raise ShardError(f"{path} cannot be read: {reason}") from error
        raise DamagedShardError(path, reason) from None
