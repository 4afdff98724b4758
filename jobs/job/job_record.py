"""Records in an output folder which job it belongs to, and lets a job go on there that is the same, or has more rows.

One process at a time does so, under the lease of `job`. Each step leaves a folder that the next process understands: a
plan is written before the job that it is the first of, and the marks of a complete job go before the plan that makes it
incomplete.
"""

import contextlib
import json
import sys
import time
from dataclasses import replace

from run_batch.io.coordination.lease import Lease, LeaseHeldError
from run_batch.io.files import create_file, replace_file, sync_folder
from run_batch.io.outputs.journal import SUFFIX
from run_batch.io.outputs.shards import ShardError, ShardStore
from run_batch.jobs.job.errors import JobError
from run_batch.jobs.job.growth import common_rows, why_not
from run_batch.jobs.job.job_identity import changes
from run_batch.jobs.job.media_sample import other_media
from run_batch.jobs.job.plan import Plan, dump_begins
from run_batch.jobs.job.recorded_job import (
    JOB_FILE,
    VERSIONS_FILE,
    JobRecord,
    PlanFile,
    encode_plan,
    index_path,
    plan_numbers,
    plan_path,
    read_recorded_job,
)
from run_batch.jobs.job.shares import LOOK_SECONDS, begun_shares, is_running

SUMMARY_FILE = "summary.json"
# The lease under which a job is completed, and under which it gets more rows.
COMPLETE_LEASE = "complete"
# Pause between two looks while another process records the job.
_RECORDING_SECONDS = 0.05


def find_record(store: ShardStore, job: JobRecord) -> JobRecord | None:
    """The record of a job in its output folder, where it can go on there; None where no job is recorded, or one that it
    may take the folder over from: that has left no row, and none of its processes runs.

    Raises:
        JobError: another job has left rows there, or runs; or the job cannot go on with the input that it has now.
        OSError: the folder cannot be read.
    """
    while True:
        recorded = read_recorded_job(store)
        if recorded is None:
            return None
        try:
            _check_same_job(store, recorded, job)
            return recorded
        except JobError:
            if _is_abandoned(store):
                return None
            # A process that runs may be of this job, and have taken the folder over just now.
            now = read_recorded_job(store)
            if now is not None and (now.job_hash, now.number) == (recorded.job_hash, recorded.number):
                raise


def is_planned(store: ShardStore, job: JobRecord) -> bool:
    """Whether the folder is recorded for this job still, with its plan or with one that goes on from it.

    Raises:
        JobError: the record cannot be read.
    """
    recorded = read_recorded_job(store)
    return (
        recorded is not None
        and recorded.job_hash == job.job_hash
        and recorded.plan.num_rows >= job.plan.num_rows
        and not why_not(job.parts, recorded.parts, None)
    )


def record_job(store: ShardStore, job: JobRecord, index: bytes) -> Plan:
    """Write down which job this folder belongs to, and how many rows it has, as far as that is not recorded yet.

    Args:
        index: what the input's files hold, for processes that open it later; may be empty.

    Returns:
        The plan as it is recorded.

    Raises:
        JobError: the folder belongs to another job, or the job cannot go on with the input that it has now.
        OSError: the folder cannot be written to.
    """
    lease = Lease(store.run_folder, "job")
    while (plan := _recorded_plan(store, job)) is None:
        try:
            lease.take()
        except LeaseHeldError:
            time.sleep(_RECORDING_SECONDS)
            continue
        try:
            _record(store, job, index)
        finally:
            lease.release()
    return plan


def withdraw_record(store: ShardStore, job: JobRecord) -> None:
    """Remove the record of a job that has left nothing; not where another job is recorded, or just is being so.

    Raises:
        JobError: the record cannot be read.
        OSError: the folder cannot be written to.
    """
    lease = Lease(store.run_folder, "job")
    try:
        lease.take()
    except LeaseHeldError:
        return
    try:
        recorded = read_recorded_job(store)
        if recorded is not None and recorded.job_hash == job.job_hash:
            _remove_record(store)
    finally:
        lease.release()


def _check_same_job(store: ShardStore, recorded: JobRecord, job: JobRecord) -> None:
    changed = changes(recorded.identity, job.identity)
    if changed:
        raise JobError(
            f"{store.folder} holds the results of another job. Changed: {'; '.join(changed)}. "
            "Change it back to resume, or choose another output.path, or remove this one"
        )
    begun = f"{store.folder} holds {recorded.plan.num_rows} rows of this job, done or planned, and cannot go on with"
    problem = why_not(recorded.parts, job.parts, job.named.get("input.limit"))
    if problem is not None and not _is_growth_unused(store, recorded, job):
        named = "".join(f" ({change})" for change in changes(recorded.named, job.named) if change.startswith("input."))
        raise JobError(f"{begun} this input{named}: {problem}, or choose another output.path")
    others = other_media(recorded.media, job.media)
    if others:
        raise JobError(
            f"{begun} these images: {', '.join(others)} in input.media_root (or beside the input) "
            f"{'is' if len(others) == 1 else 'are'} not what it was when the job began. Name the folder of the images "
            "that it began with, or choose another output.path"
        )


def _is_abandoned(store: ShardStore) -> bool:
    return not store.committed() and not _is_at_work(store)


def _is_at_work(store: ShardStore) -> bool:
    """Whether a process runs, or has left rows that are in no shard yet."""
    if any(store.journal_folder.glob(f"*{SUFFIX}")):
        return True
    return any(is_running(store.run_folder, share) for share in begun_shares(store.run_folder))


def _is_growth_unused(store: ShardStore, recorded: JobRecord, job: JobRecord) -> bool:
    """Whether a job has got rows that it does not have any more, and none of them has been finished: as where a file
    was added by mistake, and the run that planned with it was stopped.
    """
    if recorded.number == 1 or _is_at_work(store):
        return False
    stop = common_rows(recorded.parts, job.parts)
    last = max(store.committed(), default=None)
    try:
        return last is None or recorded.plan.rows(last).start + store.num_rows(last) <= stop
    except ShardError:
        return False


def _recorded_plan(store: ShardStore, job: JobRecord) -> Plan | None:
    """The plan of a job that is recorded as it is now; None where there is something to write down."""
    recorded = find_record(store, job)
    if recorded is None or recorded.parts != job.parts:
        return None
    return recorded.plan if job.versions[-1] in recorded.versions else None


def _record(store: ShardStore, job: JobRecord, index: bytes) -> None:
    """Write what is not recorded; the lease is held."""
    recorded = find_record(store, job)
    if recorded is None:
        _begin(store, job, index)
        return
    if job.versions[-1] not in recorded.versions:
        _record_versions(store, recorded, job)
    if recorded.parts != job.parts:
        _plan_anew(store, recorded, job, index)


def _begin(store: ShardStore, job: JobRecord, index: bytes) -> None:
    _remove_record(store)
    _forget_job(store)
    _write_plan(store, job, 1, index)
    content = {
        "job_hash": job.job_hash,
        "identity": job.identity,
        "media": job.media,
        "versions": job.versions[-1],
    }
    replace_file(store.run_folder / JOB_FILE, json.dumps(content, indent=1).encode())
    sync_folder(store.run_folder)


def _plan_anew(store: ShardStore, recorded: JobRecord, job: JobRecord, index: bytes) -> None:
    """Give a job more rows, or take back what it was given by mistake.

    It is complete no longer: nobody completes it meanwhile by the plan that it has had.
    """
    lease = Lease(store.run_folder, COMPLETE_LEASE)
    wait_for(lease)
    try:
        store.unmark_success()
        (store.run_folder / SUMMARY_FILE).unlink(missing_ok=True)
        plan = job.plan.following(recorded.plan)
        plan = replace(plan, cut=tuple(shard for shard in plan.cut if not _is_full(store, plan, shard)))
        number = max(plan_numbers(store)) + 1
        _write_plan(store, replace(job, plan=plan), number, index)
    finally:
        lease.release()
    what = "grows" if plan.num_rows > recorded.plan.num_rows else "goes back"
    print(f"{store.folder}: the job {what} from {recorded.plan.num_rows} to {plan.num_rows} rows", file=sys.stderr)


def _is_full(store: ShardStore, plan: Plan, shard: int) -> bool:
    """Whether a shard is committed with as many rows as a shard can have."""
    try:
        return store.is_committed(shard) and store.num_rows(shard) == plan.rows_per_shard
    except ShardError:  # damaged: it is found out, and made again
        return False


def wait_for(lease: Lease) -> None:
    """Take a lease, once no other process holds it.

    Raises:
        OSError: it cannot be written.
    """
    while True:
        try:
            lease.take()
            return
        except LeaseHeldError:
            time.sleep(LOOK_SECONDS)


def _write_plan(store: ShardStore, job: JobRecord, number: int, index: bytes) -> None:
    if index:
        replace_file(index_path(store, number), index)
    planned = job.plan
    plan = PlanFile(
        job.job_hash,
        planned.num_rows,
        planned.rows_per_shard,
        dump_begins(planned.begins),
        planned.cut,
        dict(job.named),
        tuple(job.parts),
    )
    # Where another process has created it, this one has lost its lease, and looks again.
    with contextlib.suppress(FileExistsError):
        create_file(plan_path(store, number), encode_plan(plan))
    sync_folder(store.run_folder)


def _record_versions(store: ShardStore, recorded: JobRecord, job: JobRecord) -> None:
    """Note that other versions go on with a job: each shard tells which have made it."""
    before, now = recorded.versions[-1], job.versions[-1]
    changed = "; ".join(changes(before, now))
    print(f"{store.folder}: another version goes on with this job than began it: {changed}", file=sys.stderr)
    later = [*recorded.versions[1:], now]
    replace_file(store.run_folder / VERSIONS_FILE, json.dumps(later, indent=1).encode())


def _remove_record(store: ShardStore) -> None:
    """Remove what is recorded of a job: first what says that there is one."""
    folder = store.run_folder
    numbers = plan_numbers(store)
    (folder / JOB_FILE).unlink(missing_ok=True)
    (folder / VERSIONS_FILE).unlink(missing_ok=True)
    for number in reversed(numbers):
        index_path(store, number).unlink(missing_ok=True)
        plan_path(store, number).unlink(missing_ok=True)


def _forget_job(store: ShardStore) -> None:
    """Remove what a job that has left no row has written besides: its scripts and their logs stay."""
    for share in begun_shares(store.run_folder):
        for path in (store.run_folder / share.folder).iterdir():
            if path.is_file() and not path.name.startswith(("lease-", "submit-", ".")):
                path.unlink(missing_ok=True)
