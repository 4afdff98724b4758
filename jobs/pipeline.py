"""One run of a job: read, map in worker processes, generate, commit. The way of a row from end to end.

The main thread feeds and steps the engine; the worker pool's thread reads the input ahead of it; the result writer's
thread commits shards behind it. The engine is fed across shard borders, so it is never drained before the input ends.
"""

import contextlib
import json
import queue
import sys
from collections.abc import Callable, Iterator
from typing import Any, TextIO

from run_batch.io.rows import RowBatch
from run_batch.jobs.config import JobConfig
from run_batch.jobs.cores import usable_cores
from run_batch.jobs.engine import Engine, Generation
from run_batch.jobs.errors import (
    EXIT_COMPLETE,
    EXIT_INTERRUPTED,
    EXIT_TOO_MANY_FAILURES,
    Interrupted,
    JobError,
    RunError,
)
from run_batch.jobs.interrupt import StopRequest
from run_batch.jobs.mapped import MappedRow, RowFailure, model_settings, needed_columns
from run_batch.jobs.metrics import METRICS_FILE, Metrics
from run_batch.jobs.plan import job_hash, record_job
from run_batch.jobs.prepare import PreparedJob
from run_batch.jobs.progress import PROGRESS_FILE, Progress
from run_batch.jobs.results import ResultWriter
from run_batch.jobs.worker import WorkerSpec
from run_batch.jobs.workers import BATCH_ROWS, MappedBatch, WorkerPool
from run_batch.model.plugin import announce_plugins

# Rows added to the engine, as a multiple of those it runs at once: the rest wait inside it, so that the next step
# never lacks a row because one has just finished.
_ROWS_IN_ENGINE = 2

EngineFactory = Callable[[JobConfig], Engine]


def run_job(job: PreparedJob, quiet: bool, summary: TextIO, start_engine: EngineFactory | None = None) -> int:
    """Generate all rows that are missing.

    Args:
        quiet: show no progress.
        summary: where the one line about the run goes.
        start_engine: starts the engine; vLLM's when left out.

    Returns:
        The exit code.

    Raises:
        JobError: the model, engine or sampling settings do not hold; no results were written.
        RunError: the run failed; the same command resumes it.
    """
    missing = job.missing_shards
    if not missing:
        print(f"all {job.plan.num_rows} rows are done already; results in {job.store.folder}", file=summary)
    else:
        stop = StopRequest()
        with stop.listening():
            try:
                interrupted = _Run(job, missing, quiet, summary, stop).run(start_engine or _start_vllm)
            except Interrupted:
                interrupted = True
        if interrupted:
            print("interrupted; run the same command again to go on", file=sys.stderr)
            return EXIT_INTERRUPTED
    return _finish(job)


def _start_vllm(config: JobConfig) -> Engine:
    from run_batch.model.declaration import DeclarationError
    from run_batch.model.plugin import PluginError, register

    try:
        register()
    except (PluginError, DeclarationError) as error:
        raise JobError(str(error)) from None
    return Engine(model_settings(config), config.sampling)


def _finish(job: PreparedJob) -> int:
    failed = job.rows_failed
    if not job.store.is_complete():
        job.store.mark_success()
    limit = job.config.errors.max_fraction
    if failed <= limit * job.plan.num_rows:
        return EXIT_COMPLETE
    print(
        f"{failed} of {job.plan.num_rows} rows failed, more than errors.max_fraction = {limit} allows; "
        "column error says why",
        file=sys.stderr,
    )
    return EXIT_TOO_MANY_FAILURES


class _Run:
    """The state of one run."""

    def __init__(self, job: PreparedJob, missing: list[int], quiet: bool, summary: TextIO, stop: StopRequest) -> None:
        self._job = job
        self._missing = missing
        self._quiet = quiet
        self._summary = summary
        self._stop = stop
        self._input_done = False

    def run(self, start_engine: EngineFactory) -> bool:
        """Generate the missing shards; whether that was interrupted."""
        job = self._job
        spec = WorkerSpec(job.config, job.source.schema, job.media_root)
        count = job.config.preprocess.workers or max(1, usable_cores() - 1)
        announce_plugins(job.config.model.plugins, job.config.folder)
        pool = WorkerPool(spec, self._batches(), job.source, count)
        try:
            engine = start_engine(job.config)
            try:
                return self._generate(pool, engine)
            finally:
                engine.close()
        finally:
            pool.close()

    def _batches(self) -> Iterator[RowBatch]:
        columns = needed_columns(self._job.config, self._job.source.schema)
        for shard in self._missing:
            rows = self._job.plan.rows(shard)
            yield from self._job.source.read(rows.start, rows.stop, columns, BATCH_ROWS)

    def _generate(self, pool: WorkerPool, engine: Engine) -> bool:
        first = self._first_batch(pool)
        self._stop.loading = False
        progress, writer = self._begin()
        metrics = Metrics(self._job.store.run_folder / METRICS_FILE)
        finished = _Finished(progress, writer, metrics)
        self._take(first, engine, finished)
        try:
            while not self._stop.requested:
                is_idle = not engine.unfinished
                self._feed(pool, engine, finished)
                metrics.lap("idle" if is_idle else "feed")
                if engine.unfinished:
                    for generation in _step(engine):
                        finished.add(generation)
                    metrics.lap("step")
                elif self._input_done:
                    break
                if metrics.is_due():
                    running = engine.running
                    metrics.write(pool.counts(), engine.unfinished - running, running, writer.seconds, writer.queued)
                progress.tick(metrics.bottleneck)
        finally:
            # Whatever ends the run, whole shards are saved.
            try:
                writer.finish()
            finally:
                progress.close()
        # What counts from here on is what is committed.
        progress.done, progress.failed = self._job.rows_done, self._job.rows_failed
        progress.write()
        print(progress.summary(self._job.store.folder), file=self._summary, flush=True)
        unfinished = progress.done < progress.total
        if unfinished and not self._stop.requested:
            raise RunError(
                f"the input gave {progress.total - progress.done} rows less than when the job was planned; restore it "
                "and run the same command again"
            )
        return unfinished

    def _first_batch(self, pool: WorkerPool) -> MappedBatch | None:
        """Wait for the first mapped rows: only then is it known that the workers accept the job."""
        while not self._stop.requested:
            with contextlib.suppress(queue.Empty):
                return pool.get(timeout=0.2)
        raise Interrupted

    def _begin(self) -> tuple[Progress, ResultWriter]:
        job = self._job
        try:
            job.store.create()
            job.store.discard_unfinished()
            record_job(job.store, job.identity, job.plan)
        except OSError as error:
            raise RunError(f"output.path {job.store.folder} cannot be written to: {error}") from None
        metadata = result_metadata(job.config, job.identity)
        file = job.store.run_folder / PROGRESS_FILE
        progress = Progress(job.plan.num_rows, job.rows_done, job.rows_failed, file, self._quiet)
        return progress, ResultWriter(job.config, job.plan, job.source, job.store, metadata)

    def _feed(self, pool: WorkerPool, engine: Engine, finished: "_Finished") -> None:
        """Add mapped rows to the engine until it holds enough; wait for some only when it has nothing to do."""
        while not self._input_done and engine.unfinished < _ROWS_IN_ENGINE * engine.max_num_seqs:
            try:
                batch = pool.get(timeout=0 if engine.unfinished else 0.2)
            except queue.Empty:
                return
            self._take(batch, engine, finished)

    def _take(self, batch: MappedBatch | None, engine: Engine, finished: "_Finished") -> None:
        if batch is None:
            self._input_done = True
            return
        for row in batch.rows:
            failure = engine.add(row) if isinstance(row, MappedRow) else row
            if failure is not None:
                finished.add(failure)


class _Finished:
    """Where finished rows go."""

    def __init__(self, progress: Progress, writer: ResultWriter, metrics: Metrics) -> None:
        self._progress = progress
        self._writer = writer
        self._metrics = metrics

    def add(self, result: Generation | RowFailure) -> None:
        failed = isinstance(result, RowFailure)
        prompt_tokens, generated_tokens = (
            (0, 0) if isinstance(result, RowFailure) else (result.prompt_tokens, result.generated_tokens)
        )
        self._progress.add(generated_tokens, failed)
        self._metrics.add(prompt_tokens, generated_tokens)
        self._writer.add(result)


def _step(engine: Engine) -> list[Generation]:
    try:
        return engine.step()
    except Exception as error:
        raise RunError(
            f"the engine failed: {type(error).__name__}: {error}. Committed shards are safe; run the same command "
            "again to go on"
        ) from error


def result_metadata(config: JobConfig, identity: dict[str, Any]) -> dict[str, str]:
    """What every shard says of the job that made it."""
    import vllm

    return {
        "run_batch.job_hash": job_hash(identity),
        "run_batch.model": config.model.path,
        "run_batch.vllm_version": vllm.__version__,
        "run_batch.sampling": json.dumps(config.sampling, sort_keys=True, default=str),
    }
