"""Whether a job can go on in an output folder: it is recorded there for the same job, and its rows are the first ones
of the input that the job has now.
"""

from run_batch.io.outputs.journal import SUFFIX
from run_batch.io.outputs.shards import ShardError, ShardStore
from run_batch.jobs.job.errors import JobError
from run_batch.jobs.job.growth import common_rows, why_not
from run_batch.jobs.job.job_identity import changes
from run_batch.jobs.job.media_sample import other_media
from run_batch.jobs.job.recorded_job import JobRecord, read_recorded_job
from run_batch.jobs.job.shares import begun_shares, has_engines, is_running


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
        raise JobError(f"{begun} what input.path holds now{named}: {problem}, or choose another output.path")
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
    if any(store.journal_folder.glob(f"*{SUFFIX}")) or has_engines(store.run_folder):
        return True
    if has_engines(store.run_folder):
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
