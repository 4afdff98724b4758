"""Finished rows to shards: collects rows in any order and commits each shard once it is whole, in input order."""

import functools
import heapq
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

import msgspec
import pyarrow as pa

from run_batch.io.inputs.source import InputError
from run_batch.io.outputs.shards import ShardError, ShardStore
from run_batch.jobs.job.errors import run_failed, storage_failed
from run_batch.jobs.job.rows import RowFailure, RowResult, is_truncated
from run_batch.jobs.job.work import Work
from run_batch.jobs.results.shard_sketch import STANDING_OUT, record_sketch, sketch_results
from run_batch.jobs.results.shard_commits import Commit, count_results, footer_of, record_commit
from run_batch.jobs.machine.thread_activity import activity_of_this_thread
from run_batch.jobs.results.result_table import Compared, ShardTables

# A wait without a limit would look like one for storage that hangs.
_LOOK_SECONDS = 1.0


@dataclass(slots=True)
class OpenRows:
    """The finished rows of a shard that are not committed yet, those of them with an error, and those whose generation
    ended by `length`; and how often the shard has been committed.
    """

    rows: int = 0
    failed: int = 0
    truncated: int = 0
    attempt: int = 0

    def count(self, result: RowResult) -> None:
        """Count one more row."""
        self.rows += 1
        self.failed += isinstance(result, RowFailure)
        self.truncated += is_truncated(result)


class ShardWriter:
    """Holds the rows of unfinished shards, and writes whole shards in a thread of its own.

    Attributes:
        seconds: spent on writing so far.
        rows_committed: rows taken so far that are in committed shards.
    """

    def __init__(
        self,
        work: Work,
        tables: ShardTables,
        store: ShardStore,
        metadata: Mapping[str, str],
        compression: str,
        on_commit: Callable[[Commit], None],
    ) -> None:
        """Start the thread.

        Args:
            work: the shards to commit.
            metadata: what the footer of each shard says of the job.
            compression: of the shards; see `write_shard`.
            on_commit: called in the thread with each shard that is committed.
        """
        self._work = work
        self._tables = tables
        self._store = store
        self._metadata, self._compression = metadata, compression
        self._on_commit = on_commit
        self._open: dict[int, dict[int, RowResult]] = {}
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="shard-writer")
        self._activity = self._thread.submit(activity_of_this_thread)
        self._writing: list[Future[None]] = []
        self.seconds = 0.0
        self.rows_committed = 0
        self._counts: dict[int, OpenRows] = {}
        self._slowest: dict[int, list[tuple[float, int]]] = {}

    @property
    def queued(self) -> int:
        """Whole shards that are not on disk yet."""
        return len(self._writing)

    def activity(self) -> object:
        """A value that changes while the thread works; None while it has nothing to write."""
        is_writing = any(not future.done() for future in list(self._writing))
        return self._activity.result()() if is_writing else None

    def open_rows(self) -> dict[int, OpenRows]:
        """What is finished of each shard that is not committed yet."""
        return self._counts.copy()

    def add(self, result: RowResult, seconds: float = 0.0) -> None:
        """Take one finished row.

        Args:
            seconds: that it was in the engine; 0 where that is not known.

        Raises:
            RunError: a shard could not be written.
        """
        shard = self._work.plan.shard_of(result.row)
        rows = self._open.setdefault(shard, {})
        rows[result.row] = result
        if seconds:
            slowest = self._slowest.setdefault(shard, [])
            slowest[:] = heapq.nlargest(STANDING_OUT, [*slowest, (round(seconds, 3), result.row)])
        self._counts.setdefault(shard, OpenRows(attempt=self._work.attempt(shard))).count(result)
        if len(rows) == len(self._work.rows(shard)):
            del self._open[shard]
            self._writing.append(self._thread.submit(self._commit, shard, rows))
        self._raise_failed(only_done=True)

    def finish(self) -> None:
        """Wait until all whole shards are on disk.

        Raises:
            RunError: a shard could not be written.
        """
        try:
            self._raise_failed(only_done=False)
        finally:
            self._thread.shutdown()
            self._tables.close()

    def _raise_failed(self, only_done: bool) -> None:
        while self._writing and (self._writing[0].done() or not only_done):
            wait(self._writing[:1], _LOOK_SECONDS)
            if self._writing[0].done():
                self._writing.pop(0).result()

    def _commit(self, shard: int, results: dict[int, RowResult]) -> None:
        started = time.monotonic()
        try:
            self._on_commit(self._write(shard, results))
        except (InputError, ShardError) as error:
            raise run_failed(str(error), error) from error
        except OSError as error:
            raise storage_failed(f"shard {shard} cannot be written to {self._store.folder}", error) from error
        self.seconds += time.monotonic() - started
        self.rows_committed += len(results)
        del self._counts[shard]

    def _write(self, shard: int, results: Mapping[int, RowResult]) -> Commit:
        rows, attempt = self._work.plan.rows(shard), self._work.attempt(shard)
        if attempt > 0:
            results = {**self._tables.results(self._store.read(shard, self._tables.result_columns), rows.start), **results}
        ordered = [results[row] for row in rows]
        written = _ShardRows(self._tables, shard, attempt, ordered)
        slowest = self._slowest.pop(shard, ())

        def record() -> None:
            commit = written.commit
            place = (shard, attempt, commit.time)
            record_sketch(self._store, sketch_results(place, ordered, written.expected, slowest))
            record_commit(self._store, commit if attempt == 0 else msgspec.structs.replace(commit, is_there=False))

        def footer() -> dict[str, str]:
            return {**self._metadata, **footer_of(written.commit)}

        self._store.commit_tables(shard, written.tables, footer, self._compression, before=record)
        if attempt > 0:
            record_commit(self._store, written.commit)
        return written.commit


class _ShardRows:
    """The rows of a shard while it is written, and their counts, which are known once all are."""

    def __init__(self, tables: ShardTables, shard: int, attempt: int, results: Sequence[RowResult]) -> None:
        self._tables, self._shard, self._attempt, self._results = tables, shard, attempt, results
        self._matches: list[bool | None] = []
        self._expected: list[str | None] = []

    def tables(self) -> Iterator[pa.Table]:
        """The tables of the shard, each made when it is asked for, and held by nobody after that."""
        self._matches.clear()
        self._expected.clear()
        return map(self._seen, self._tables.build(self._shard, self._results))

    def _seen(self, part: tuple[pa.Table, Compared | None]) -> pa.Table:
        table, compared = part
        if compared is not None:
            self._matches += compared.matches
            self._expected += compared.expected
        return table

    @property
    def expected(self) -> Sequence[str | None] | None:
        """What is expected of each row; None if nothing is of any."""
        return self._expected or None

    @functools.cached_property
    def commit(self) -> Commit:
        """The counts of the shard; asked for when all tables were."""
        return count_results(self._shard, self._attempt, self._results, self._matches)
