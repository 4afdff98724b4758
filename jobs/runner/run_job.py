"""A run of a job, or of a share of it: takes the lease, does what is left to do, ends with an exit code."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import TextIO

from run_batch.io.coordination.claims import Claims
from run_batch.io.coordination.lease import Lease
from run_batch.io.outputs.shards import ShardError
from run_batch.jobs.engine.start_vllm import start_vllm
from run_batch.jobs.engine.vllm_engine import Engine
from run_batch.jobs.job.config import JobConfig
from run_batch.jobs.job.errors import (
    EXIT_COMPLETE,
    EXIT_INTERRUPTED,
    Interrupted,
    JobError,
    RunError,
    run_failed,
    storage_errors,
)
from run_batch.jobs.job.pooling import is_pooling
from run_batch.jobs.job.prepare import PreparedJob
from run_batch.jobs.job.rows import PooledForm
from run_batch.jobs.job.work import Work
from run_batch.jobs.machine.early_signals import INTERRUPTED_LINE
from run_batch.jobs.machine.stop_signals import StopRequest
from run_batch.jobs.machine.storage_watch import StorageWatch
from run_batch.jobs.results.shard_commits import CommittedShards
from run_batch.jobs.runner.damaged_shards import damaged_shards, set_aside, tell_missing
from run_batch.jobs.runner.finished_rows import FinishedRows
from run_batch.jobs.runner.job_completion import complete_job, exit_code
from run_batch.jobs.runner.pipeline import Pipeline
from run_batch.jobs.runner.place_failures import PlaceFailures
from run_batch.jobs.runner.run_outputs import open_output, result_metadata, withdraw
from run_batch.jobs.runner.shard_assignment import next_work
from run_batch.jobs.runner.share_lease import output_folder, share_lease
from run_batch.jobs.runner.uploads import Uploads, finish_uploads, start_uploads
from run_batch.jobs.runner.work_planning import failed_work
from run_batch.jobs.runner.work_stealing import can_steal
from run_batch.jobs.watch.loading_line import loading_line
from run_batch.jobs.watch.progress import Progress
from run_batch.jobs.watch.run_end import note_end
from run_batch.jobs.watch.run_messages import RunMessages
from run_batch.model.engine_phases import phase_seconds

EngineFactory = Callable[[JobConfig], Engine]


def run_job(
    job: PreparedJob,
    quiet: bool,
    summary: TextIO,
    start_engine: EngineFactory | None = None,
    retry_failed: bool = False,
    is_part: bool = False,
) -> int:
    """Generate all rows of a share that are missing, or all that failed.

    Args:
        quiet: show no progress.
        summary: where the one line about the run goes.
        start_engine: starts the engine; vLLM's when left out.
        retry_failed: generate the rows of committed shards again that have an error.
        is_part: it is a part of another run, which judges what has failed, and tells of an interruption.

    Returns:
        The exit code.

    Raises:
        JobError: the model, engine or sampling settings are invalid; no results were written.
        RunError: the run failed; the same command resumes it.
        MayPassError: storage or network failed in a way that may pass.
    """
    storage = StorageWatch(job.config.errors.storage_seconds)
    try:
        with storage.thread(f"output.path {job.store.folder}"):
            if job.is_replanned and not retry_failed:
                # Before anything is looked at: the folder is complete no longer.
                with _writing(job):
                    job = job.write_record()
            with _reading(job):
                damaged = damaged_shards(job)
                committed = CommittedShards(job.store, job.plan, job.shards, damaged)
            run = _Run(job, committed, damaged, start_engine or start_vllm, quiet, summary, retry_failed, storage)
            if is_part:
                run.stop.line = ""
            if retry_failed:
                run.retry()
            else:
                run.resume()
            if not is_part:  # the run that it is a part of copies what is left
                run.finish_uploads()
            return EXIT_COMPLETE if is_part else exit_code(committed, job.config.errors.max_fraction)
    except Interrupted:
        if not is_part:
            print(INTERRUPTED_LINE, file=sys.stderr)
        return EXIT_INTERRUPTED
    except ShardError as error:
        raise run_failed(str(error), error) from error


class _Run:
    """One run of a share: what stays the same while it does one piece of work after another.

    Attributes:
        stop: the signals that ask it to stop.
    """

    def __init__(
        self,
        job: PreparedJob,
        committed: CommittedShards,
        damaged: Mapping[int, str],
        start_engine: EngineFactory,
        quiet: bool,
        summary: TextIO,
        retry_failed: bool,
        storage: StorageWatch,
    ) -> None:
        self._job, self._committed, self._damaged = job, committed, damaged
        self._start_engine, self._quiet, self._summary = start_engine, quiet, summary
        self._messages = RunMessages(quiet)
        self.stop = StopRequest()
        self._storage = storage
        self._pooled: PooledForm | None = None
        # Rows that have failed already may well fail again: that tells nothing of the place of a retry.
        max_fraction = 1.0 if retry_failed else job.config.errors.max_fraction
        self._place_failures = PlaceFailures(job.config.errors.min_rows, max_fraction)
        self._uploads: Uploads | None = None
        self._progress: Progress | None = None
        self._not_uploaded: RunError | None = None

    def resume(self) -> None:
        """Generate what is missing, then help other shares, until nothing is left."""
        job, committed = self._job, self._committed
        with _reading(job):
            tell_missing(job.store, job.plan)
            has_work = bool(committed.missing()) or can_steal(job.store, job.plan, job.share)
        if not has_work:
            self._nothing_to_do(f"all {committed.rows} rows are done already")
            return
        with self.stop.listening(), output_folder(job.store):
            # Before anything is loaded: two jobs that are started in one folder find each other in time.
            with _writing(job):
                self._job = job.write_record()
            committed.plan = self._job.plan
            with share_lease(job.store, job.share) as lease, self._uploading():
                self._generate_missing(lease)
        self._end(rewritten=False)

    def _generate_missing(self, lease: Lease) -> None:
        job, committed = self._job, self._committed
        claims = self._claims(lease)
        try:
            set_aside(job, claims, self._damaged)
            committed.damaged.clear()
            while work := self._next_work(claims):
                is_done = self._do(work, claims, lease)
                if not is_done or (self.stop.requested and committed.missing()):
                    raise Interrupted
                if self.stop.requested:
                    break
                self.stop.loading = True
        except (JobError, RunError):  # where nothing was finished, nothing is left
            claims.release_all()
            withdraw(job)
            raise
        finally:
            claims.release_all()

    def _claims(self, lease: Lease) -> Claims:
        """The claims of this run; given up with its lease if a signal ends it at once."""
        claims = Claims(self._job.store.run_folder, lease)

        def abandon() -> None:
            claims.release_all()
            note_end(self._job.store.own_folder, EXIT_INTERRUPTED)
            lease.release()

        self.stop.abandon = abandon
        return claims

    def retry(self) -> None:
        """Generate the failed rows of committed shards again."""
        job, committed = self._job, self._committed
        if committed.missing():
            why = "".join(f"; {job.store.path(shard)} is damaged: {why}" for shard, why in self._damaged.items())
            raise JobError(f"--retry-failed needs a complete job: run the same command without it first{why}")
        if not committed.rows_failed:
            self._nothing_to_do("no row has failed")
            return
        with (
            self.stop.listening(),
            output_folder(job.store),
            share_lease(job.store, job.share) as lease,
            self._uploading(),
        ):
            claims = self._claims(lease)
            try:
                if not self._do(failed_work(job.store, committed), claims, lease):
                    raise Interrupted
            finally:
                claims.release_all()
        self._end(rewritten=True)

    @contextlib.contextmanager
    def _uploading(self) -> Iterator[None]:
        """Copy what is committed meanwhile, and wait for that at the end, unless it ends by an error."""
        self._uploads = start_uploads(self._job)
        yield
        if self._uploads is not None:
            if self._progress is not None:
                self._progress.wait_for(f"copies to {self._job.config.output.upload}")
            self._not_uploaded = self._uploads.drain(self.stop)

    def finish_uploads(self) -> None:
        """End the run with what kept shards from being copied; without that, see `uploads.finish_uploads`.

        Raises:
            RunError: something cannot be copied; MayPassError where that may pass.
        """
        if self._not_uploaded is not None:
            raise self._not_uploaded
        finish_uploads(self._job)

    def _next_work(self, claims: Claims) -> Work | None:
        with _reading(self._job):
            return next_work(self._committed, self._job.share, self._job.store, claims)

    def _do(self, work: Work, claims: Claims, lease: Lease) -> bool:
        """Do some work; False if a signal came first."""
        job = self._job
        pipeline = Pipeline(job, work, claims, self.stop, self._place_failures, self._storage, self._quiet)
        retried = sum(len(work.rows(shard)) for shard in work.shards) if work.is_retry else 0
        self._messages.work(job, self._committed, retried, pipeline.rows_recovered)

        def open_own_output() -> FinishedRows:
            metadata, uploads = result_metadata(job), self._uploads
            finished = open_output(job, work, self._committed, claims, metadata, self._quiet, uploads, self._pooled)
            finished.progress.messages = self._messages
            return finished

        finished, left = pipeline.run(self._start, open_own_output, lease)
        self._progress = finished.progress
        with _reading(job):
            self._committed.refresh()  # other processes may have committed some of the share's shards
        print(finished.conclude(self._committed, job.store.folder), file=self._summary, flush=True)
        truncated, imageless = finished.progress.truncated, finished.progress.imageless_rows
        self._messages.end(self._committed.with_failures(), truncated, imageless, job.store.folder)
        if left and not self.stop.requested:
            raise RunError(
                f"the input gave {left} rows less than when the job was planned; restore it and run the same command "
                "again"
            )
        return left == 0

    def _start(self) -> Engine:
        then = time.monotonic()
        with loading_line(self._quiet):
            engine = self._start_engine(self._job.config)
        self._messages.loaded(time.monotonic() - then, phase_seconds(then), engine.max_num_seqs)
        if is_pooling(self._job.config):
            self._pooled = engine.pooled
        return engine

    def _nothing_to_do(self, why: str) -> None:
        print(f"{why}; results in {self._job.store.folder}", file=self._summary)
        self._end(rewritten=False)

    def _end(self, rewritten: bool) -> None:
        complete_job(self._job, again=rewritten)


def _writing(job: PreparedJob) -> AbstractContextManager[None]:
    """Around what writes to the output folder."""
    return storage_errors(f"output.path {job.store.folder} cannot be written to")


def _reading(job: PreparedJob) -> AbstractContextManager[None]:
    """Around what lists the files of other processes in the output folder."""
    return storage_errors(f"output.path {job.store.folder} cannot be read")
