"""The way of a row from end to end: read, map in worker processes, generate, commit.

The main thread feeds and steps the engine; the worker pool's thread reads the input ahead of it; the shard writer's
thread commits shards behind it. The engine is fed across the borders of shards, so it is never drained before the
input ends.
"""

import contextlib
import queue
import time
from collections.abc import Callable, Iterator

from run_batch.io.coordination.claims import Claims
from run_batch.io.coordination.lease import Lease, LeaseLost
from run_batch.io.inputs.source import RowBatch
from run_batch.jobs.engine.engine_feed import ROWS_IN_ENGINE
from run_batch.jobs.engine.running_rows import RunningRows
from run_batch.jobs.engine.supervisor import Supervisor
from run_batch.jobs.engine.vllm_engine import Engine
from run_batch.jobs.job.errors import Interrupted, JobError, RunError, storage_errors
from run_batch.jobs.job.prepare import PreparedJob
from run_batch.jobs.job.row_reader import RowReader
from run_batch.jobs.job.rows import MappedRow, MappedRows
from run_batch.jobs.job.work import Work
from run_batch.jobs.machine.cores import usable_cores
from run_batch.jobs.machine.memory import default_row_memory
from run_batch.jobs.machine.stop_signals import StopRequest
from run_batch.jobs.machine.storage_watch import StorageWatch
from run_batch.jobs.mapping.row_deadlines import RowDeadlines
from run_batch.jobs.mapping.worker_main import WorkerSpec
from run_batch.jobs.mapping.worker_pool import BATCH_ROWS, WorkerPool
from run_batch.jobs.runner.finished_rows import FinishedRows
from run_batch.jobs.runner.memory_notice import MemoryNotice
from run_batch.jobs.runner.place_failures import PlaceFailures
from run_batch.jobs.runner.pool_error import ended_by
from run_batch.jobs.runner.resume import ShardRecovery, resume
from run_batch.jobs.runner.shard_assignment import ShardAssignment
from run_batch.jobs.watch.loading_line import loading_line
from run_batch.model.plugin import announce_plugins

# Rows that fail while they are mapped never fill the engine: between so many batches, progress is shown and checked.
_BATCHES_AT_ONCE = 64
# Storage that has stalled is asked again after so long.
_STALLED_SECONDS = 0.1

StartEngine = Callable[[], Engine]
OpenOutput = Callable[[], FinishedRows]


class Pipeline:
    """One pass over some work, from the first row that is read to the last shard that is committed.

    Attributes:
        rows_recovered: rows of the work that earlier runs have finished, in shards that are not committed.
    """

    def __init__(
        self,
        job: PreparedJob,
        work: Work,
        claims: Claims,
        stop: StopRequest,
        place_failures: PlaceFailures,
        storage: StorageWatch,
        quiet: bool = True,
    ) -> None:
        """Read what earlier runs left of the work.

        Args:
            place_failures: of the process; they go on from what it did before.
            storage: watches the output folder and the input.
            quiet: do not tell of the wait for the first rows.

        Raises:
            RunError: the output folder cannot be read or written.
        """
        self._job = job
        self._stop = stop
        self._place_failures = place_failures
        self._storage, self._quiet = storage, quiet
        self._resumed = resume(job, work, claims)
        self.rows_recovered = len(self._resumed.results)
        self._assignment = ShardAssignment(
            work, job.share, job.store, claims, {job.plan.shard_of(row) for row in self._resumed.results}
        )
        self._recovery = ShardRecovery(job, work, self._resumed.results)
        self._work = work
        self._reader = RowReader(job.config, job.source, BATCH_ROWS)
        self._rows_read = self._rows_taken = 0
        self._input_done = False

    def run(self, start_engine: StartEngine, open_output: OpenOutput, lease: Lease) -> tuple[FinishedRows, int]:
        """Do the work, or as much of it as there is before a signal.

        Args:
            start_engine: starts an engine; again after each death of one.
            open_output: opens what the run writes to, once the engine is loaded and the first rows are mapped.
            lease: of the share.

        Returns:
            Where the rows went, and how many of those that were begun are not in a committed shard.

        Raises:
            JobError: the model, engine or sampling settings are invalid; no results were written.
            RunError: the run failed; the same command resumes it.
            Interrupted: a signal came before the first row was generated.
        """
        config = self._job.config
        spec = WorkerSpec(config, self._job.source.schema, self._job.media_root, self._job.prompt_column)
        announce_plugins(config.model.plugins, config.folder)
        deadlines = RowDeadlines(config.errors.row_seconds, config.errors.start_seconds)
        workers = config.preprocess.workers or usable_cores()
        budget = config.row_memory or default_row_memory()
        pool = WorkerPool(spec, self._watched_batches(), workers, deadlines=deadlines, budget=budget)
        try:
            with ended_by(pool, config.errors.step_seconds):
                engine = Supervisor(start_engine, config.errors.step_seconds, self._stop, config.errors.start_seconds)
            try:
                first = self._first_rows(pool)
                self._stop.loading = False
                finished = open_output()
                folder = self._job.store.folder
                with (
                    finished.watched(self._storage, folder),
                    self._storage.output(f"the lease in {folder}", lambda: lease.touching, lambda: lease.touching),
                ):
                    self._generate(pool, engine, finished, first, lease)
            finally:
                engine.close()
        finally:
            pool.close()
        return finished, self._assignment.rows_assigned - finished.rows_committed

    def _watched_batches(self) -> Iterator[RowBatch | None]:
        """The rows to map. How long a remote input may take is for its client to say."""
        is_local = self._job.source.folder is not None
        name = f"input.path {', '.join(self._job.config.input_paths)}"
        return self._storage.each(name, self._batches(), is_limited=is_local)

    def _batches(self) -> Iterator[RowBatch | None]:
        """The rows to map: of this share, then of others; None while it is not known yet whether to help others."""
        with contextlib.closing(self._reader):
            yield from self._rows_of(self._assignment.own())
            while self._rows_taken < self._rows_read:
                yield None
            # A process that cannot read the images of its own rows would fail those of others, too.
            if not self._place_failures.are_too_many:
                yield from self._rows_of(self._assignment.stolen())

    def _rows_of(self, shards: Iterator[int]) -> Iterator[RowBatch]:
        """The rows of shards, one shard after the other, without those that are finished already."""
        for shard in self._checked(shards):
            rows = self._work.rows(shard)
            done = self._recovery.rows(shard)
            left = [row for row in rows if row not in done] if done else rows
            for batch in self._reader.read(left):
                self._rows_read += batch.records.num_rows
                yield batch

    def _checked(self, shards: Iterator[int]) -> Iterator[int]:
        what = f"output.path {self._job.store.folder}"
        with storage_errors(f"{what} cannot be read or written"):
            yield from self._storage.each(what, shards, is_limited=True)

    def _first_rows(self, pool: WorkerPool) -> MappedRows | None:
        """Wait for the first mapped rows: only then is it known that the workers accept the job."""
        with loading_line(self._quiet, "mapping the first rows"):
            while not self._stop.requested:
                with contextlib.suppress(queue.Empty):
                    return pool.get(timeout=0.2)
        raise Interrupted

    def _begin(self, engine: Supervisor, finished: FinishedRows) -> None:
        """Take what earlier runs left, before the first row of this one."""
        self._stop.save = self._storage.save = finished.save_now
        finished.adopt(self._resumed.adopted)
        finished.take_recovered(self._resumed.results)
        finished.progress.show()
        self._place_failures.count_finished(finished.progress.done)
        if not self._work.is_retry:  # rows that have failed already may well fail again
            finished.hold_first_failures(self._job.config.errors.min_rows)
        places = 2 * ROWS_IN_ENGINE * engine.max_num_seqs
        with storage_errors(f"output.path {self._job.store.folder} cannot be written to"):
            record = RunningRows(self._resumed.note_file, places)
            engine.remember(self._resumed.suspects, record, finished.save_now, finished.has_texts)

    def _generate(
        self, pool: WorkerPool, engine: Supervisor, finished: FinishedRows, first: MappedRows | None, lease: Lease
    ) -> None:
        metrics = finished.metrics
        notice = MemoryNotice(pool.memory, engine.max_num_seqs, pool.counts().workers)
        try:
            self._begin(engine, finished)
            self._take(first, engine, finished)
            while not self._stop.requested:
                if self._storage.is_stalled:
                    lease.check()
                    time.sleep(_STALLED_SECONDS)
                    continue
                is_idle = not engine.unfinished
                self._feed(pool, engine, finished)
                if not engine.unfinished:
                    finished.check_first_failures()
                metrics.lap("idle" if is_idle else "feed")
                self._take_late(finished)
                notice.look(pool.rows_waiting, engine.unfinished)
                if engine.unfinished:
                    for result in engine.step():
                        finished.add(result)
                    metrics.lap("step")
                elif self._input_done:
                    self._place_failures.check()
                    break
                with self._storage.call(f"the progress in {self._job.store.folder}"):
                    finished.tell(pool, engine, self._assignment.rows_stolen, self._storage.stalled)
                lease.check()
            with self._storage.call(f"the progress in {self._job.store.folder}"):
                finished.tell_last(pool)
        except JobError as error:  # found late, by a row that needs it: the rows before it are kept
            if not finished.has_texts:
                raise
            raise RunError(str(error)) from error
        except LeaseLost as lost:
            raise RunError(f"output.path {self._job.store.folder}: {lost}; this run stops") from None
        finally:
            # Whatever ends the run, finished rows are saved.
            finished.close()

    def _feed(self, pool: WorkerPool, engine: Supervisor, finished: FinishedRows) -> None:
        """Add mapped rows to the engine until it holds enough; wait for some only when it has nothing to do."""
        for _ in range(_BATCHES_AT_ONCE):
            if self._input_done or not engine.wants_rows:
                return
            try:
                rows = pool.get(timeout=0 if engine.is_busy else 0.2)
            except queue.Empty:
                return
            self._take(rows, engine, finished)

    def _take(self, rows: MappedRows | None, engine: Supervisor, finished: FinishedRows) -> None:
        if rows is None:
            self._end_input(engine, finished)
            return
        table = self._job.config.input
        if table.image_column or table.video_column is not None:
            finished.progress.imageless_rows += sum(isinstance(row, MappedRow) and not row.nbytes for row in rows)
        for row in rows:
            finished.begin(row.row)
            for failure in self._place_failures.pass_on(engine.add(row)):
                finished.add(failure)
        self._rows_taken += len(rows)

    def _end_input(self, engine: Supervisor, finished: FinishedRows) -> None:
        self._input_done = True
        engine.end_input()
        # If too many have failed, the run ends once the engine has finished its rows.
        if not self._place_failures.are_too_many:
            for failure in self._place_failures.release():
                finished.add(failure)

    def _take_late(self, finished: FinishedRows) -> None:
        """Take the rows that were found when shards of dead processes were taken over."""
        with contextlib.suppress(queue.Empty):
            while True:
                finished.take_recovered(self._recovery.late.get_nowait())
