"""The end of a share: its exit code, and, once the last share is done, `summary.json` and `_SUCCESS`.

Processes meet in the output folder alone; nothing here needs more of it than exclusive create and atomic rename.
"""

import contextlib
import json
import sys
import time
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass

from run_batch.io.coordination.claims import Claims
from run_batch.io.coordination.lease import Lease
from run_batch.io.files import replace_file
from run_batch.jobs.job.errors import EXIT_COMPLETE, EXIT_TOO_MANY_FAILURES, are_too_many, storage_errors
from run_batch.jobs.job.job_record import COMPLETE_LEASE, SUMMARY_FILE, wait_for
from run_batch.jobs.job.prepare import PreparedJob
from run_batch.jobs.job.recorded_job import read_recorded_job
from run_batch.jobs.job.shares import files_of_shares, is_running, share_of
from run_batch.jobs.results.journal_files import remove_settled
from run_batch.jobs.results.journal_rows import JournalRow
from run_batch.jobs.results.shard_commits import (
    Commit,
    CommittedShards,
    complete_shards,
    errors_by_kind,
    read_commits,
)


@dataclass(frozen=True, slots=True)
class JobSummary:
    """A complete job, in `.run_batch/summary.json`.

    Attributes:
        rows, failed, truncated, prompt_tokens, generated_tokens: of all shards; `truncated` are rows whose generation
            ended by `length`.
        errors: how many rows failed, by kind of error.
        matching, mismatching: rows whose text is, or is not, that of `errors.expected_column`.
        completed: seconds since the epoch.
    """

    rows: int
    failed: int
    truncated: int
    errors: dict[str, int]
    prompt_tokens: int
    generated_tokens: int
    matching: int
    mismatching: int
    completed: float


def complete_job(job: PreparedJob, again: bool) -> None:
    """Where all shards are committed: write `summary.json` and `_SUCCESS`, once.

    Args:
        again: shards have been rewritten, so an earlier summary is no longer true.

    Raises:
        RunError: the output folder cannot be written to.
        ShardError: a shard cannot be read.
    """
    store, plan = job.store, job.plan
    with storage_errors(f"_SUCCESS cannot be written to {store.folder}"):
        if (again or not _is_told(job)) and len(complete_shards(store, plan)) == plan.num_shards:
            _complete(job, again)


def exit_code(committed: CommittedShards, max_fraction: float) -> int:
    """The exit code of a complete share, by the fraction of its rows that failed or have an unexpected text."""
    failed, mismatching = committed.rows_failed, committed.rows_mismatching
    if not are_too_many(failed + mismatching, committed.rows, max_fraction):
        return EXIT_COMPLETE
    found = [(failed, "failed (column error says why)"), (mismatching, "have another text than is expected of them")]
    counts = " and ".join(f"{count} of {committed.rows} rows {what}" for count, what in found if count)
    print(f"{counts}: more than errors.max_fraction = {max_fraction} allows", file=sys.stderr)
    return EXIT_TOO_MANY_FAILURES


def _complete(job: PreparedJob, again: bool) -> None:
    store = job.store
    lease = Lease(store.run_folder, COMPLETE_LEASE)
    wait_for(lease)
    try:
        if _has_grown(job) or (_is_told(job) and not again):
            return
        commits = read_commits(store, job.plan, range(job.plan.num_shards))
        summary = _summary(commits.values())
        replace_file(store.run_folder / SUMMARY_FILE, json.dumps(asdict(summary), indent=1).encode())
        store.mark_success()
        _clean_up(job, commits, Claims(store.run_folder, lease))
    finally:
        lease.release()


def _is_told(job: PreparedJob) -> bool:
    """Whether the folder says that the job is complete, with all rows that it has."""
    if not job.store.is_complete():
        return False
    try:
        told: int = json.loads((job.store.run_folder / SUMMARY_FILE).read_text())["rows"]
    except (OSError, ValueError, KeyError):
        return False
    return told == job.plan.num_rows


def _has_grown(job: PreparedJob) -> bool:
    """Whether the job has got more rows since this process began: whoever generates those completes it."""
    recorded = read_recorded_job(job.store)
    if recorded is None or recorded.plan.num_rows <= job.plan.num_rows:
        return False
    rows = recorded.plan.num_rows
    print(f"{job.store.folder}: the job has {rows} rows by now: the same command goes on with them", file=sys.stderr)
    return True


def _summary(commits: Collection[Commit]) -> JobSummary:
    errors = errors_by_kind(commits)
    return JobSummary(
        rows=sum(commit.rows for commit in commits),
        failed=sum(errors.values()),
        truncated=sum(commit.truncated for commit in commits),
        errors=dict(errors),
        prompt_tokens=sum(commit.prompt_tokens for commit in commits),
        generated_tokens=sum(commit.generated_tokens for commit in commits),
        matching=sum(commit.matching for commit in commits),
        mismatching=sum(commit.mismatching for commit in commits),
        completed=time.time(),
    )


def _clean_up(job: PreparedJob, commits: Mapping[int, Commit], claims: Claims) -> None:
    """Remove what dead processes have left and nobody needs. What cannot be removed stays, and does no harm.

    Other shares may run with `--retry-failed` now, or have been interrupted: what they have finished is kept.
    """
    folder = job.store.run_folder

    def has_process(label: str) -> bool:
        share = share_of(label)
        return share is not None and is_running(folder, share)

    def is_left(row: JournalRow) -> bool:
        attempt, result = row
        commit = commits.get(job.plan.shard_of(result.row))
        return commit is None or attempt > commit.attempt

    with contextlib.suppress(OSError):
        remove_settled(job.store, job.record.job_hash, has_process, is_left)
        claims.remove_dead()
        for leftover in list(files_of_shares(folder, "part-*.tmp")):
            if not has_process(leftover.parent.name):
                leftover.unlink(missing_ok=True)
