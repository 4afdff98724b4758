"""Where finished rows go: into the journal at once, into their shard once it is whole, and into the counts."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import TextIO

from run_batch.io.journal import JournalWriter
from run_batch.jobs.generation import Generation
from run_batch.jobs.journal import JournalRow, encode_rows, journal_folder
from run_batch.jobs.mapped import RowFailure
from run_batch.jobs.metrics import METRICS_FILE, Metrics
from run_batch.jobs.plan import job_hash, record_job
from run_batch.jobs.prepare import PreparedJob
from run_batch.jobs.progress import PROGRESS_FILE, Progress
from run_batch.jobs.results import ResultWriter, storage_failed
from run_batch.jobs.resume import Resumed, writer_name
from run_batch.jobs.supervisor import Supervisor
from run_batch.jobs.work import Work
from run_batch.jobs.workers import WorkerPool


class FinishedRows:
    """Takes every row once, from this run or from the journals of earlier ones."""

    def __init__(
        self, job: PreparedJob, work: Work, resumed: Resumed, metadata: Mapping[str, str], quiet: bool
    ) -> None:
        """Make the output folder ready.

        Args:
            metadata: of every shard.

        Raises:
            RunError: it cannot be written to.
        """
        self._job, self._work = job, work
        store, folder = job.store, journal_folder(job.store)
        try:
            store.discard_unfinished(set(work.shards))
            folder.mkdir(exist_ok=True)
            record_job(store, job.identity, job.plan)
        except OSError as error:
            raise storage_failed(f"output.path {store.folder} cannot be written to", error) from None
        self._journal = JournalWriter[JournalRow](folder, writer_name(), job_hash(job.identity), encode_rows)
        for path, shards in resumed.segments:
            self._journal.adopt(path, shards)
        self._writer = ResultWriter(job.config, work, job.source, store, metadata, self._journal.settle)
        retried = sum(map(len, work.retried.values()))
        done, failed = job.plan.num_rows - work.num_rows, job.rows_failed - retried
        self.progress = Progress(job.plan.num_rows, done, failed, store.run_folder / PROGRESS_FILE, quiet)
        self.metrics = Metrics(store.run_folder / METRICS_FILE)

    def take_resumed(self, resumed: Resumed) -> None:
        """Take the rows that earlier runs finished: their journals have them already."""
        for result in resumed.results.values():
            self.progress.add(0, isinstance(result, RowFailure))
            self._writer.add(result)
        self.progress.begin()

    def add(self, result: Generation | RowFailure) -> None:
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
            self._journal.append(shard, JournalRow(self._work.attempts.get(shard, 0), result))
        self._writer.add(result)

    def write_metrics(self, pool: WorkerPool, engine: Supervisor) -> None:
        running = engine.running
        waiting = engine.unfinished - running
        self.metrics.write(pool.counts(), waiting, running, self._writer.seconds, self._writer.queued)

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
        """Say what has become of the rows; how many are not in a committed shard."""
        progress, writer, job = self.progress, self._writer, self._job
        left = self._work.num_rows - writer.rows_committed
        progress.done = job.plan.num_rows - left + len(writer.open_rows)
        progress.failed = job.rows_failed
        if not self._work.retried:
            progress.failed += sum(isinstance(result, RowFailure) for result in writer.open_rows)
        progress.write()
        print(progress.summary(job.store.folder), file=summary, flush=True)
        return left


@contextlib.contextmanager
def _journal_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise storage_failed("the journal cannot be written", error) from error
