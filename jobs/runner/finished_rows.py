"""Where finished rows go: into the journal at once, into their shard once it is whole, and into the counts."""

import contextlib
import queue
from collections.abc import Iterator, Mapping
from typing import TextIO

from run_batch.io.coordination.claims import Claims
from run_batch.io.outputs.journal import JournalWriter
from run_batch.jobs.engine.supervisor import Supervisor
from run_batch.jobs.job.errors import storage_failed
from run_batch.jobs.job.plan import job_hash, record_job
from run_batch.jobs.job.prepare import PreparedJob
from run_batch.jobs.job.rows import RowFailure, RowResult
from run_batch.jobs.job.work import Work
from run_batch.jobs.mapping.worker_pool import WorkerPool
from run_batch.jobs.results.commits import Commit, record_commit
from run_batch.jobs.results.journal_rows import JournalRow, encode_rows
from run_batch.jobs.results.recovery import journal_folder, segment_name, writer_name
from run_batch.jobs.results.shard_writer import ResultWriter
from run_batch.jobs.runner.resume import Resumed
from run_batch.jobs.runner.shard_assignment import Assignment
from run_batch.jobs.watch.metrics import METRICS_FILE, Metrics
from run_batch.jobs.watch.progress import PROGRESS_FILE, Progress


class FinishedRows:
    """Takes every row once, from this run or from the journals of earlier ones."""

    def __init__(
        self,
        job: PreparedJob,
        work: Work,
        resumed: Resumed,
        assignment: Assignment,
        claims: Claims,
        metadata: Mapping[str, str],
        quiet: bool,
    ) -> None:
        """Make the output folder ready.

        Args:
            metadata: of every shard.

        Raises:
            RunError: it cannot be written to.
        """
        self._job, self._work, self._assignment, self._claims = job, work, assignment, claims
        store, folder, writer = job.store, journal_folder(job.store), writer_name()
        try:
            store.discard_unfinished()
            if not folder.is_dir():
                folder.mkdir(exist_ok=True)
            record_job(store, job.identity, job.plan, job.source)
        except OSError as error:
            raise storage_failed(f"output.path {store.folder} cannot be written to", error) from None

        def segment(shard: int) -> str:
            shards = job.shards if shard in job.shards else range(shard, shard + 1)
            return segment_name(shards, job.share.label, writer)

        self._journal = JournalWriter[JournalRow](folder, segment, job_hash(job.identity), encode_rows)
        for path, shards in resumed.adopted:
            self._journal.adopt(path, shards)
        self._writer = ResultWriter(job.config, work, job.source, store, metadata, self._committed)
        retried = sum(map(len, work.retried.values()))
        done, failed = job.rows_done - retried, job.rows_failed - retried
        file = store.own_folder / PROGRESS_FILE
        self.progress = Progress(job.num_rows, done, failed, file, writer, quiet)
        self.metrics = Metrics(store.own_folder / METRICS_FILE)
        self.take_recovered(resumed.results)

    def take_recovered(self, results: Mapping[int, RowResult]) -> None:
        """Take rows that earlier runs finished: their journals have them already."""
        for result in results.values():
            self.progress.add_recovered(isinstance(result, RowFailure))
            self._writer.add(result)

    def take_late(self) -> None:
        """Take the rows that were found when shards of dead processes were taken over."""
        with contextlib.suppress(queue.Empty):
            while True:
                self.take_recovered(self._assignment.recovered.get_nowait())

    def add(self, result: RowResult) -> None:
        """Take one row.

        Raises:
            RunError: it cannot be written.
        """
        failed = isinstance(result, RowFailure)
        prompt_tokens, generated_tokens = (
            (0, 0) if isinstance(result, RowFailure) else (result.prompt_tokens, result.generated_tokens)
        )
        self.progress.add(generated_tokens, failed)
        self.metrics.add(prompt_tokens, generated_tokens)
        shard = result.row // self._work.plan.rows_per_shard
        with _journal_errors():
            self._journal.append(shard, (self._work.attempts.get(shard, 0), result))
        self._writer.add(result)

    def tell(self, pool: WorkerPool, engine: Supervisor) -> None:
        """Say now and then how far things are."""
        if self.metrics.is_due():
            running = engine.running
            waiting = engine.unfinished - running
            self.metrics.write(pool.counts(), waiting, running, self._writer.seconds, self._writer.queued)
        self._count()
        self.progress.tick(self.metrics.bottleneck)

    def _count(self) -> None:
        progress, writer, job = self.progress, self._writer, self._job
        progress.rows_open = writer.rows_added - writer.rows_committed
        progress.failed_open = writer.failed_added - writer.failed_committed
        progress.total = job.num_rows + self._assignment.rows_helped

    def _committed(self, commit: Commit) -> None:
        """In the writer's thread."""
        record_commit(self._job.store, commit)
        self._journal.settle(commit.shard)
        self._claims.release(commit.shard)

    def save_now(self) -> None:
        """Make finished rows durable, from any thread: the process is about to end."""
        self._journal.close(timeout=5)

    def close(self) -> None:
        """Commit what is whole, and make the rest durable.

        Raises:
            RunError: it cannot be written.
        """
        try:
            self._writer.finish()
        finally:
            try:
                with _journal_errors():
                    self._journal.close()
            finally:
                self.progress.close()

    def conclude(self, summary: TextIO) -> int:
        """Say what has become of the rows; how many were begun and are not in a committed shard."""
        progress, job = self.progress, self._job
        self._count()
        # Others may have done some of the share's shards.
        progress.total = job.num_rows
        progress.done = min(job.rows_done + progress.rows_open, progress.total)
        progress.failed = job.rows_failed + (0 if self._work.retried else progress.failed_open)
        progress.write(running=False)
        print(progress.summary(job.store.folder), file=summary, flush=True)
        return self._assignment.rows_taken - self._writer.rows_committed


@contextlib.contextmanager
def _journal_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise storage_failed("the journal cannot be written", error) from error
