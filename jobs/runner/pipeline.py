"""One run of a job: read, map in worker processes, generate, commit. The way of a row from end to end.

The main thread feeds and steps the engine; the worker pool's thread reads the input ahead of it; the result writer's
thread commits shards behind it. The engine is fed across shard borders, so it is never drained before the input ends.
"""

import contextlib
import gc
import json
import queue
import sys
from collections.abc import Callable, Iterator
from typing import Any, TextIO

from run_batch.io.coordination.claims import Claims
from run_batch.io.coordination.lease import Lease, LeaseLost
from run_batch.io.inputs.source import RowBatch
from run_batch.io.outputs.shards import ShardError
from run_batch.jobs.engine.running_rows import RunningRows
from run_batch.jobs.engine.supervisor import ROWS_IN_ENGINE, Supervisor
from run_batch.jobs.engine.vllm_engine import Engine
from run_batch.jobs.job.columns import model_settings, needed_columns
from run_batch.jobs.job.config import JobConfig
from run_batch.jobs.job.errors import (
    EXIT_INTERRUPTED,
    Interrupted,
    JobError,
    RunError,
    storage_failed,
)
from run_batch.jobs.job.plan import job_hash
from run_batch.jobs.job.prepare import PreparedJob
from run_batch.jobs.job.work import Work, failed_work, read_rows
from run_batch.jobs.machine.cores import usable_cores
from run_batch.jobs.machine.stop_signals import StopRequest
from run_batch.jobs.mapping.worker_main import WorkerSpec
from run_batch.jobs.mapping.worker_pool import BATCH_ROWS, MappedRows, WorkerPool
from run_batch.jobs.runner.completion import can_help, finish, held, next_work
from run_batch.jobs.runner.finished_rows import FinishedRows
from run_batch.jobs.runner.resume import Resumed, resume
from run_batch.jobs.runner.shard_assignment import Assignment
from run_batch.model.plugin import announce_plugins

EngineFactory = Callable[[JobConfig], Engine]


def run_job(
    job: PreparedJob,
    quiet: bool,
    summary: TextIO,
    start_engine: EngineFactory | None = None,
    retry_failed: bool = False,
) -> int:
    """Generate all rows of a share that are missing, or all that failed.

    Args:
        quiet: show no progress.
        summary: where the one line about the run goes.
        start_engine: starts the engine; vLLM's when left out.
        retry_failed: generate the rows of committed shards again that have an error.

    Returns:
        The exit code.

    Raises:
        JobError: the model, engine or sampling settings do not lease; no results were written.
        RunError: the run failed; the same command resumes it.
    """
    if retry_failed and job.missing_shards:
        raise JobError("--retry-failed needs a complete job: run the same command without it first")
    try:
        if not job.missing_shards and not (job.rows_failed if retry_failed else can_help(job)):
            what = "no row has failed" if retry_failed else f"all {job.num_rows} rows are done already"
            print(f"{what}; results in {job.store.folder}", file=summary)
            return finish(job)
        stop = StopRequest()
        try:
            with stop.listening(), held(job) as lease:
                claims = Claims(job.store.run_folder, lease)
                try:
                    while work := failed_work(job) if retry_failed else next_work(job, claims):
                        run = _Run(job, work, quiet, summary, stop, lease, claims)
                        if run.run(start_engine or _start_vllm) or (stop.requested and job.missing_shards):
                            raise Interrupted
                        if retry_failed or stop.requested:
                            break
                        stop.loading = True
                finally:
                    claims.release_all()
            return finish(job, again=retry_failed)
        except Interrupted:
            pass
    except ShardError as error:
        raise RunError(str(error)) from None
    print("interrupted; run the same command again to go on", file=sys.stderr)
    return EXIT_INTERRUPTED


def _start_vllm(config: JobConfig) -> Engine:
    from run_batch.model.declaration import DeclarationError
    from run_batch.model.plugin import PluginError, register

    # While vLLM is imported almost nothing becomes garbage, and the collector walks through all of it often.
    gc.disable()
    try:
        register()
        return Engine(model_settings(config), config.sampling)
    except (PluginError, DeclarationError) as error:
        raise JobError(str(error)) from None
    finally:
        gc.enable()


class _Run:
    """The state of one run."""

    def __init__(
        self,
        job: PreparedJob,
        work: Work,
        quiet: bool,
        summary: TextIO,
        stop: StopRequest,
        lease: Lease,
        claims: Claims,
    ) -> None:
        self._job = job
        self._work = work
        self._quiet = quiet
        self._summary = summary
        self._stop = stop
        self._lease = lease
        self._input_done = False
        self._claims = claims
        self._resumed: Resumed = resume(job, work, claims)
        self._assignment = Assignment(job, work, claims)

    def run(self, start_engine: EngineFactory) -> bool:
        """Do the work; whether that was interrupted."""
        job = self._job
        spec = WorkerSpec(job.config, job.source.schema, job.media_root)
        count = job.config.preprocess.workers or usable_cores()
        announce_plugins(job.config.model.plugins, job.config.folder)
        pool = WorkerPool(spec, self._batches(), count)
        try:
            engine = Supervisor(lambda: start_engine(job.config), job.config.errors.step_seconds, self._stop)
            try:
                return self._generate(pool, engine)
            finally:
                engine.close()
        finally:
            pool.close()

    def _batches(self) -> Iterator[RowBatch]:
        columns = needed_columns(self._job.config, self._job.source.schema)
        with_ids = self._job.config.input.id_column is None
        for shard in self._shards():
            rows = self._work.rows(shard)
            done = self._assignment.recover(shard, self._resumed.results)
            left = [row for row in rows if row not in done]
            todo = left if len(left) < len(rows) else rows
            yield from read_rows(self._job.source, todo, columns, BATCH_ROWS, with_ids)

    def _shards(self) -> Iterator[int]:
        try:
            yield from self._assignment
        except OSError as error:
            store = self._job.store
            raise storage_failed(f"output.path {store.folder} cannot be read or written", error) from None

    def _generate(self, pool: WorkerPool, engine: Supervisor) -> bool:
        first = self._first_batch(pool)
        self._stop.loading = False
        finished = self._begin(engine)
        metrics = finished.metrics
        try:
            self._take(first, engine, finished)
            while not self._stop.requested:
                is_idle = not engine.unfinished
                self._feed(pool, engine, finished)
                metrics.lap("idle" if is_idle else "feed")
                if engine.unfinished:
                    for result in engine.step():
                        finished.add(result)
                    metrics.lap("step")
                elif self._input_done:
                    finished.take_late()
                    break
                finished.take_late()
                finished.tell(pool, engine)
                self._lease.check()
        except JobError as error:  # found late, by a row that needs it: the rows before it are kept
            raise RunError(str(error)) from None
        except LeaseLost as lost:
            raise RunError(f"output.path {self._job.store.folder}: {lost}; this run stops") from None
        finally:
            # Whatever ends the run, finished rows are saved.
            finished.close()
        left = finished.conclude(self._summary)
        if left and not self._stop.requested:
            raise RunError(
                f"the input gave {left} rows less than when the job was planned; restore it and run the same command "
                "again"
            )
        return left > 0

    def _first_batch(self, pool: WorkerPool) -> MappedRows | None:
        """Wait for the first mapped rows: only then is it known that the workers accept the job."""
        while not self._stop.requested:
            with contextlib.suppress(queue.Empty):
                return pool.get(timeout=0.2)
        raise Interrupted

    def _begin(self, engine: Supervisor) -> FinishedRows:
        metadata = result_metadata(self._job.config, self._job.identity)
        finished = FinishedRows(
            self._job, self._work, self._resumed, self._assignment, self._claims, metadata, self._quiet
        )
        self._stop.save = finished.save_now
        places = 2 * ROWS_IN_ENGINE * engine.max_num_seqs
        try:
            engine.remember(self._resumed.suspects, RunningRows(self._resumed.note_file, places), finished.save_now)
        except OSError as error:
            raise storage_failed(f"output.path {self._job.store.folder} cannot be written to", error) from None
        return finished

    def _feed(self, pool: WorkerPool, engine: Supervisor, finished: FinishedRows) -> None:
        """Add mapped rows to the engine until it holds enough; wait for some only when it has nothing to do."""
        while not self._input_done and engine.wants_rows:
            try:
                batch = pool.get(timeout=0 if engine.is_busy else 0.2)
            except queue.Empty:
                return
            self._take(batch, engine, finished)

    def _take(self, batch: MappedRows | None, engine: Supervisor, finished: FinishedRows) -> None:
        if batch is None:
            self._input_done = True
            engine.end_input()
            return
        for row in batch:
            failure = engine.add(row)
            if failure is not None:
                finished.add(failure)


def result_metadata(config: JobConfig, identity: dict[str, Any]) -> dict[str, str]:
    """What every shard says of the job that made it."""
    import vllm

    return {
        "run_batch.job_hash": job_hash(identity),
        "run_batch.model": config.model.path,
        "run_batch.vllm_version": vllm.__version__,
        "run_batch.sampling": json.dumps(config.sampling, sort_keys=True, default=str),
    }
