"""A run with several engines on this machine: to the user it is one run.

The parent process is no share. It starts the engines' processes, and alone shows progress, judges what has failed, and
ends with a summary and an exit code.
"""

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TextIO

from run_batch.io.coordination.claims import Claims
from run_batch.io.coordination.lease import Lease, LeaseHeldError, LeaseLost
from run_batch.io.outputs.shards import ShardError, ShardStore
from run_batch.jobs.engines.engine_main import EngineSpec
from run_batch.jobs.engines.engine_process import EngineProcess, EngineSlot, StartProcess, start_process
from run_batch.jobs.engines.engines_progress import EnginesProgress
from run_batch.jobs.engines.fleet import Fleet, divide_job, make_slots
from run_batch.jobs.engines.process_groups import process_groups
from run_batch.jobs.job.errors import EXIT_INTERRUPTED, EXIT_RUN_FAILED, Interrupted, JobError, RunError, storage_errors
from run_batch.jobs.job.prepare import PreparedJob
from run_batch.jobs.job.shares import SHARES_FOLDER, Share
from run_batch.jobs.machine.cores import divide, divide_cores, usable_cores
from run_batch.jobs.machine.early_signals import INTERRUPTED_LINE
from run_batch.jobs.machine.gpus import Place
from run_batch.jobs.machine.memory import check_row_memory, default_row_memory
from run_batch.jobs.machine.stop_signals import SAVE_SECONDS, StopRequest
from run_batch.jobs.results.shard_commits import CommittedShards, complete_shards
from run_batch.jobs.runner.damaged_shards import damaged_shards, tell_missing
from run_batch.jobs.runner.job_completion import complete_job, exit_code
from run_batch.jobs.runner.run_job import EngineFactory, run_job
from run_batch.jobs.runner.run_outputs import withdraw
from run_batch.jobs.runner.share_lease import engines_lease, output_folder
from run_batch.jobs.runner.uploads import finish_uploads
from run_batch.jobs.watch.run_messages import RunMessages, say

# The engines save for SAVE_SECONDS at most; the parent waits that long, and for them to end.
_SAVE_SECONDS = SAVE_SECONDS + 10.0


@dataclass(frozen=True, slots=True)
class RunOptions:
    """The options of a run, as the command line has them.

    Attributes:
        quiet: show no progress.
        verbose: show what vLLM logs.
        retry_failed: generate the failed rows of committed shards again.
    """

    quiet: bool = False
    verbose: bool = False
    retry_failed: bool = False


def run_on_machine(
    job: PreparedJob,
    places: Sequence[Place],
    options: RunOptions,
    summary: TextIO,
    start_engine: EngineFactory | None = None,
    start: StartProcess | None = None,
) -> int:
    """Generate all rows of a share that are missing, or all that failed, with as many engines as there are places.

    Args:
        places: where each engine finds its GPUs. No more engines are started than there are shards to do; a single
            one runs in this process.
        summary: where the one line about the run goes.
        start_engine: starts the engine of this process; vLLM's when left out.
        start: starts the process of one of several engines.

    Returns:
        The exit code.

    Raises:
        JobError: the model, engine or sampling settings are invalid; no results were written.
        RunError: the run failed; the same command resumes it.
    """
    check_row_memory(job.config.row_memory, len(places))
    if len(places) > 1:
        try:
            if job.is_replanned and not options.retry_failed:
                with storage_errors(f"output.path {job.store.folder} cannot be written to"):
                    job = job.write_record()
            with storage_errors(f"output.path {job.store.folder} cannot be read"):
                committed = CommittedShards(job.store, job.plan, job.shards, damaged_shards(job))
                engines = min(len(places), _shards_to_do(job, committed, options.retry_failed))
        except ShardError as error:
            raise RunError(str(error)) from None
        if engines > 1:
            _tell_engines(engines, len(places), options)
            run = _EnginesRun(job, places[:engines], committed, options, summary, start or start_process)
            return run.run()
    os.environ.update(places[0])
    return run_job(job, options.quiet, summary, start_engine, options.retry_failed)


def _shards_to_do(job: PreparedJob, committed: CommittedShards, retry_failed: bool) -> int:
    """The shards that engines can work on at the same time: of the share, or of others where it is done."""
    missing = len(committed.missing())
    if retry_failed:
        return 0 if missing else len(committed.with_failures())
    return missing or job.plan.num_shards - len(complete_shards(job.store, job.plan))


def _tell_engines(engines: int, places: int, options: RunOptions) -> None:
    if not options.quiet:
        why = f" of {places}: there are no more shards to do (see output.rows_per_shard)" if engines < places else ""
        print(f"{engines} engines{why}", file=sys.stderr, flush=True)


class _EnginesRun:
    """One run with several engines."""

    def __init__(
        self,
        job: PreparedJob,
        places: Sequence[Place],
        committed: CommittedShards,
        options: RunOptions,
        summary: TextIO,
        start: StartProcess,
    ) -> None:
        # The folder that those of the engines are made in; one of its own would make it look like a share.
        self._job = replace(job, store=ShardStore(job.store.folder, SHARES_FOLDER))
        self._committed, self._options, self._summary = committed, options, summary
        self._start = start
        workers = divide(job.config.preprocess.workers or usable_cores(), len(places))
        self._work = divide_job(job, make_slots(places, divide_cores(len(places)), workers))
        self._stop = StopRequest(_SAVE_SECONDS)

    def run(self) -> int:
        """Run the engines to their end; the exit code.

        Raises:
            JobError, RunError: see run_on_machine.
        """
        job = self._job
        try:
            with self._stop.listening(), output_folder(job.store), engines_lease(job.store, job.share) as lease:
                with storage_errors(f"output.path {job.store.folder} cannot be written to"):
                    self._job = job.write_record()
                    self._committed.plan = self._job.plan
                    tell_missing(job.store, self._job.plan)
                try:
                    code = self._run_fleet(lease)
                except (JobError, RunError):
                    self._withdraw(lease)
                    raise
            if job.config.output.upload is not None and self._stop.requested:
                raise Interrupted  # the next run makes the copies that are left
            finish_uploads(self._job)
            return code
        except Interrupted:
            print(INTERRUPTED_LINE, file=sys.stderr)
            return EXIT_INTERRUPTED
        except LeaseLost as lost:
            raise RunError(f"output.path {job.store.folder}: {lost}; this run stops") from None
        except ShardError as error:
            raise RunError(str(error)) from None

    def _run_fleet(self, lease: Lease) -> int:
        job, options = self._job, self._options
        shares = list(self._work.values())
        retried = self._committed.rows_failed if options.retry_failed else 0
        RunMessages(options.quiet).work(job, self._committed, retried)
        progress = EnginesProgress(job, shares, self._committed, options.retry_failed, options.quiet)
        with process_groups() as groups:

            def start(slot: EngineSlot, share: Share) -> EngineProcess:
                return EngineProcess(slot, self._spec(slot, share), groups, say, self._start)

            fleet = Fleet(job, self._work, start, progress, say)
            self._stop.loading = False
            try:
                fleet.run(self._stop, lease, groups.check)
                progress.show()
            finally:
                fleet.close()
                progress.close()
        return self._conclude(fleet, progress)

    def _spec(self, slot: EngineSlot, share: Share) -> EngineSpec:
        """What the process of one engine is told: its part of what the keys of [preprocess] give to this machine."""
        config, options = self._job.config, self._options
        memory = (config.row_memory or default_row_memory()) // len(self._work)
        preprocess = config.preprocess.model_copy(update={"workers": slot.workers, "memory": memory})
        config = config.model_copy(update={"preprocess": preprocess})
        return EngineSpec(config, share, options.retry_failed, options.verbose, os.getpid())

    def _withdraw(self, lease: Lease) -> None:
        """Remove what engines that could not begin, or were killed before they had, have written: see withdraw."""
        folder = self._job.store.folder
        with suppress(OSError):
            Claims(self._job.store.run_folder, lease).remove_dead()
        for share in self._work.values():
            store = ShardStore(folder, share.folder)
            with suppress(OSError, LeaseHeldError):
                stale = Lease(store.own_folder, share.label)
                stale.take()
                stale.release()
                withdraw(replace(self._job, store=store))
                store.own_folder.rmdir()
        withdraw(self._job)

    def _conclude(self, fleet: Fleet, progress: EnginesProgress) -> int:
        """Complete the job, if it is; tell what became of the run."""
        job, committed, retry = self._job, self._committed, self._options.retry_failed
        with storage_errors(f"output.path {job.store.folder} cannot be read"):
            print(progress.conclude(), file=self._summary, flush=True)
        complete_job(job, again=retry or fleet.gave_up)
        is_undone = bool(fleet.undone) if retry else bool(committed.missing())
        if is_undone and self._stop.requested:
            raise Interrupted
        if is_undone:
            left = "rows that failed" if retry else f"{len(committed.missing())} shards"
            print(f"run-batch: {left} are left; run the same command again to go on", file=sys.stderr)
            return fleet.exit_code or EXIT_RUN_FAILED
        return exit_code(committed, job.config.errors.max_fraction)
