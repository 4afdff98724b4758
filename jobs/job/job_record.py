"""Records in an output folder which job it belongs to, and lets a job go on there that is the same, or has more rows.

One process at a time does so, under the lease of `job`. Each step leaves a folder that the next process understands: a
plan is written before the job that it is the first of, and the marks of a complete job go before the plan that makes it
incomplete.
"""

import json
import sys
import time
from dataclasses import replace

from run_batch.io.coordination.lease import Lease, LeaseHeldError
from run_batch.io.files import create_file, replace_file, sync_folder
from run_batch.io.outputs.shards import ShardError, ShardStore
from run_batch.jobs.job.find_record import find_record
from run_batch.jobs.job.job_identity import changes
from run_batch.jobs.job.plan import Plan, dump_begins
from run_batch.jobs.job.recorded_job import (
    CONFIG_FILE,
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
from run_batch.jobs.job.shares import LOOK_SECONDS, begun_shares

SUMMARY_FILE = "summary.json"
# The lease under which a job is completed, and under which it gets more rows.
COMPLETE_LEASE = "complete"
# Pause between two looks while another process records the job.
_RECORDING_SECONDS = 0.05


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
        # One that was stopped while it recorded the job has left a plan alone.
        if recorded is None or recorded.job_hash == job.job_hash:
            _remove_record(store)
    finally:
        lease.release()


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
        is_written = _write_plan(store, replace(job, plan=plan), number, index)
    finally:
        lease.release()
    if not is_written:
        time.sleep(LOOK_SECONDS)  # it is there, and not seen yet, as on network file systems
        return
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


def _write_plan(store: ShardStore, job: JobRecord, number: int, index: bytes) -> bool:
    """Write a plan, and what the files of its input hold; False where there is one of this number already."""
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
    try:
        create_file(plan_path(store, number), encode_plan(plan))
    except FileExistsError:
        return False
    sync_folder(store.run_folder)
    return True


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
    (folder / CONFIG_FILE).unlink(missing_ok=True)
    for number in reversed(numbers):
        index_path(store, number).unlink(missing_ok=True)
        plan_path(store, number).unlink(missing_ok=True)


def _forget_job(store: ShardStore) -> None:
    """Remove what a job that has left no row has written besides: its scripts and their logs stay."""
    for share in begun_shares(store.run_folder):
        for path in (store.run_folder / share.folder).iterdir():
            if path.is_file() and not path.name.startswith(("lease-", "submit-", ".")):
                path.unlink(missing_ok=True)
