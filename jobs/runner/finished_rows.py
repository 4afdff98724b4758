"""Where finished rows go: into the journal at once, into their shard once it is whole, and into the counts."""

import contextlib
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

from run_batch.io.outputs.journal import JournalWriter
from run_batch.jobs.engine.supervisor import Supervisor
from run_batch.jobs.job.errors import storage_errors
from run_batch.jobs.job.rows import RowFailure, RowResult, is_truncated
from run_batch.jobs.job.work import Work
from run_batch.jobs.machine.storage_watch import StorageWatch
from run_batch.jobs.mapping.worker_pool import WorkerPool
from run_batch.jobs.results.journal_rows import JournalRow
from run_batch.jobs.results.shard_commits import CommittedShards
from run_batch.jobs.results.shard_writer import ShardWriter
from run_batch.jobs.runner.first_failures import FirstFailures
from run_batch.jobs.watch.metrics import Metrics
from run_batch.jobs.watch.progress import Progress


class FinishedRows:
    """Takes every row once, from this run or from the journals of earlier ones."""

    def __init__(
        self, work: Work, journal: JournalWriter[JournalRow], writer: ShardWriter, progress: Progress, metrics: Metrics
    ) -> None:
        self._work, self._journal, self._writer = work, journal, writer
        self.progress, self.metrics = progress, metrics
        self._rows = progress.total
        self._first: FirstFailures | None = None
        # When each row that is not finished came to the engine.
        self._begun: dict[int, float] = {}

    def adopt(self, segments: Sequence[tuple[Path, Collection[int]]]) -> None:
        """Have journal files of earlier runs removed once these shards of theirs are committed."""
        for path, shards in segments:
            self._journal.adopt(path, shards)

    def take_recovered(self, results: Mapping[int, RowResult]) -> None:
        """Take rows that earlier runs finished: they are in a journal already."""
        for result in results.values():
            self.progress.add_recovered(isinstance(result, RowFailure), is_truncated(result))
            self._writer.add(result)

    def hold_first_failures(self, min_rows: int) -> None:
        """Record no failed row before a row is generated, or all is over: see FirstFailures."""
        self._first = FirstFailures(min_rows, self.has_texts)

    def check_first_failures(self) -> None:
        """End the run if all rows so far fail alike; called while the engine has no row that may yet work.

        Raises:
            JobError, RunError: see FirstFailures.check.
        """
        if self._first is not None:
            self._first.check()

    def begin(self, row: int) -> None:
        """Note that a row comes to the engine now."""
        self._begun[row] = time.monotonic()

    def add(self, result: RowResult) -> None:
        """Take one row.

        Raises:
            RunError: it cannot be written.
        """
        for finished in self._first.pass_on(result) if self._first is not None else [result]:
            self._record(finished)

    def _record(self, result: RowResult) -> None:
        failed, begun = isinstance(result, RowFailure), self._begun.pop(result.row, None)
        tokens = (0, 0) if isinstance(result, RowFailure) else (result.prompt_tokens, result.generated_tokens)
        self.progress.add(tokens[1], failed, is_truncated(result))
        self.metrics.add(*tokens)
        shard = self._work.plan.shard_of(result.row)
        with storage_errors("the journal cannot be written"):
            self._journal.append(shard, (self._work.attempt(shard), result))
        self._writer.add(result, time.monotonic() - begun if begun is not None else 0.0)

    def tell(self, pool: WorkerPool, engine: Supervisor, rows_stolen: int, stalled: str) -> None:
        """Write and show progress and metrics, now and then.

        Args:
            rows_stolen: rows of other shares that are done here.
            stalled: what waits for the storage; empty while nothing does.
        """
        if self.metrics.is_due():
            running = engine.running
            waiting = engine.unfinished - running
            self.metrics.write(pool.counts(), waiting, running, self._writer.seconds, self._writer.queued)
        self.progress.open_rows = self._writer.open_rows()
        self.progress.total = self._rows + rows_stolen
        # Rows that have been read before are generated meanwhile.
        self.progress.waiting_for = stalled if not engine.unfinished else ""
        self.progress.tick(self.metrics.bottleneck)

    def tell_last(self, pool: WorkerPool) -> None:
        """Write the metrics of the last part of a second: no row is left to generate."""
        self.metrics.write(pool.counts(), 0, 0, self._writer.seconds, self._writer.queued, is_last=True)

    @property
    def has_texts(self) -> bool:
        """Whether any row of the share has been generated, by this run or an earlier one."""
        return self.progress.done > self.progress.failed

    @property
    def rows_committed(self) -> int:
        """Rows that this run has taken and that are in committed shards."""
        return self._writer.rows_committed

    def conclude(self, committed: CommittedShards, folder: Path) -> str:
        """Write the last progress of a run that ends; one line on it, for people.

        Args:
            committed: of the share.
            folder: of the results.
        """
        progress = self.progress
        progress.open_rows = self._writer.open_rows()
        left = progress.open_rows.values()
        # Other processes may have done some of the share's shards, and this one some of theirs.
        progress.total = committed.rows
        progress.done = min(committed.rows_done + sum(shard.rows for shard in left), progress.total)
        progress.failed = committed.rows_failed
        if not self._work.is_retry:
            progress.failed += sum(shard.failed for shard in left)
        progress.truncated = committed.rows_truncated + sum(shard.truncated for shard in left)
        progress.write(running=False)
        return progress.summary(folder) + accuracy(committed)

    @contextlib.contextmanager
    def watched(self, storage: StorageWatch, folder: Path) -> Iterator[None]:
        """Watch the threads that write to the output folder."""
        journal, shards = self._journal, self._writer.activity
        with (
            storage.output(f"the journal in {folder}", lambda: journal.turns, lambda: journal.calls),
            storage.output(f"the shards in {folder}", shards, shards),
        ):
            yield

    def save_now(self) -> None:
        """Make finished rows durable, from any thread: the process is about to end."""
        self._journal.close(timeout=5)

    def close(self) -> None:
        """Commit shards that are whole, and make the other rows durable.

        Raises:
            RunError: they cannot be written.
        """
        try:
            for result in self._first.release() if self._first is not None else ():
                self._record(result)
            self._writer.finish()
        finally:
            try:
                with storage_errors("the journal cannot be written"):
                    self._journal.close()
            finally:
                self.progress.close()


def accuracy(committed: CommittedShards) -> str:
    """What the summary line says of expected texts; empty where none are expected."""
    compared = committed.rows_matching + committed.rows_mismatching
    return f"; {committed.rows_matching} of {compared} texts as expected" if compared else ""
