"""Several processes on one job: who may begin, who waits for whom, and who says that the job is complete.

They meet in the output folder alone. Nothing here needs more of it than exclusive create and atomic rename.
"""

import contextlib
import json
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass

from run_batch.io.coordination.claims import Claims, remove_claims, remove_folder
from run_batch.io.coordination.lease import Lease, LeaseHeldError
from run_batch.io.outputs.shards import replace_file
from run_batch.jobs.job.errors import EXIT_COMPLETE, EXIT_TOO_MANY_FAILURES, RunError, storage_failed
from run_batch.jobs.job.prepare import PreparedJob
from run_batch.jobs.job.shares import SHARES_FOLDER
from run_batch.jobs.job.work import Work, missing_work
from run_batch.jobs.results.commits import errors_by_kind, read_commits
from run_batch.jobs.results.recovery import remove_journals
from run_batch.jobs.runner.shard_assignment import shards_to_help_with

SUMMARY_FILE = "summary.json"
_LOOK_SECONDS = 1.0
_WAIT_FOR_OTHERS_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class JobSummary:
    """A complete job, in `.run_batch/summary.json`.

    Attributes:
        rows, failed, prompt_tokens, generated_tokens: of all shards.
        errors: how many rows failed, by kind of error.
        completed: seconds since the epoch.
    """

    rows: int
    failed: int
    errors: dict[str, int]
    prompt_tokens: int
    generated_tokens: int
    completed: float


@contextlib.contextmanager
def held(job: PreparedJob) -> Iterator[Lease]:
    """Hold the share. A folder that is still empty at the end, because the job did not start, goes again.

    Raises:
        RunError: another run works on the share. Not a JobError: nothing is wrong with the job, and the same command
            goes on with it later.
    """
    store = job.store
    lease = Lease(store.own_folder, job.share.label)
    made = []
    try:
        try:
            made = store.create()
            dead = _take(lease, job)
        except OSError as error:
            raise storage_failed(f"output.path {store.folder} cannot be written to", error) from None
        except LeaseHeldError as error:
            raise RunError(f"output.path {store.folder} is in use by another run: {error}") from None
        if dead is not None:
            print(f"taking over from a run that has died ({dead})", file=sys.stderr)
        yield lease
    finally:
        lease.release()
        if store.run_folder in made:
            remove_folder(store.run_folder)
        for folder in reversed(made):
            with contextlib.suppress(OSError):
                folder.rmdir()


def _take(lease: Lease, job: PreparedJob) -> str | None:
    """Take the lease; the dead process that had it. What a scheduler has started waits until it is sure that one is
    dead: it was started anew on another machine because the first has failed, and would not be a second time.

    Raises:
        LeaseHeldError, OSError: see Lease.take.
    """
    told = False
    while True:
        try:
            dead = lease.take()
            return dead.describe() if dead is not None else None
        except LeaseHeldError as error:
            is_scheduled = job.share.count > 1 or "SLURM_JOB_ID" in os.environ
            if error.seconds is None or not is_scheduled:
                raise
            if not told:
                print(f"waiting for share {job.share.label}: {error}", file=sys.stderr, flush=True)
            told = True
            time.sleep(_LOOK_SECONDS)


def can_help(job: PreparedJob) -> bool:
    """Whether a share that is complete can help others: now, or in a moment, when those that were started with it have
    begun.

    Raises:
        OSError: the output folder cannot be read.
    """
    until = time.monotonic() + _WAIT_FOR_OTHERS_SECONDS
    while job.share.count > 1 and len(job.store.committed()) < job.plan.num_shards:
        if shards_to_help_with(job):
            return True
        if time.monotonic() > until:
            break
        time.sleep(_LOOK_SECONDS)
    return False


def next_work(job: PreparedJob, claims: Claims) -> Work | None:
    """What a share has to do now, if only to help another one; None if there is nothing. While all that it misses is
    in the hands of other processes, this waits for them: they commit it, or die and leave it.

    Raises:
        OSError: the output folder cannot be read.
    """
    while True:
        work = missing_work(job)
        if any(map(claims.is_free, work.shards)) or shards_to_help_with(job):
            return work
        if not work.shards:
            return None
        time.sleep(_LOOK_SECONDS)


def finish(job: PreparedJob, again: bool = False) -> int:
    """The exit code of a complete share. If it was the last one, the job is complete: say so, once.

    Args:
        again: shards have been written anew, so what was said before does not lease any more.

    Raises:
        RunError: the output folder cannot be written to.
        ShardError: a shard cannot be read.
    """
    try:
        if (again or not job.store.is_complete()) and len(job.store.committed()) == job.plan.num_shards:
            _complete(job, again)
    except OSError as error:
        raise storage_failed(f"_SUCCESS cannot be written to {job.store.folder}", error) from None
    failed, limit = job.rows_failed, job.config.errors.max_fraction
    if failed <= limit * job.num_rows:
        return EXIT_COMPLETE
    print(
        f"{failed} of {job.num_rows} rows failed, more than errors.max_fraction = {limit} allows; "
        "column error says why",
        file=sys.stderr,
    )
    return EXIT_TOO_MANY_FAILURES


def _complete(job: PreparedJob, again: bool) -> None:
    store = job.store
    last = Lease(store.run_folder, "complete")
    while True:
        try:
            last.take()
            break
        except LeaseHeldError:  # another process finds the job complete at the same time, or has died of it
            time.sleep(_LOOK_SECONDS)
    try:
        if store.is_complete() and not again:
            return
        commits = read_commits(store, store.committed()).values()
        errors = errors_by_kind(commits)
        summary = JobSummary(
            rows=job.plan.num_rows,
            failed=sum(errors.values()),
            errors=dict(errors),
            prompt_tokens=sum(commit.prompt_tokens for commit in commits),
            generated_tokens=sum(commit.generated_tokens for commit in commits),
            completed=time.time(),
        )
        replace_file(store.run_folder / SUMMARY_FILE, json.dumps(asdict(summary), indent=1).encode())
        store.mark_success()
        _clean_up(job)
    finally:
        last.release()


def _clean_up(job: PreparedJob) -> None:
    """Remove what only an incomplete job needs. What stays, because it cannot be removed, does no harm."""
    folder = job.store.run_folder
    with contextlib.suppress(OSError):
        remove_journals(job.store)
        remove_claims(folder)
        for leftover in folder.glob(f"{SHARES_FOLDER}/*/part-*.tmp"):
            leftover.unlink(missing_ok=True)
