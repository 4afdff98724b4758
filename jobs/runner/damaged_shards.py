"""Shards that were there and are not any more, or cannot be read: told, taken out of the results, and made again."""

import sys
from collections.abc import Mapping

from run_batch.io.coordination.claims import Claims
from run_batch.io.outputs.shards import ShardStore
from run_batch.jobs.job.errors import storage_errors
from run_batch.jobs.job.plan import Plan
from run_batch.jobs.job.prepare import PreparedJob
from run_batch.jobs.job.result_columns import result_columns
from run_batch.jobs.results.shard_check import find_damaged
from run_batch.jobs.results.shard_commits import complete_shards

# Up to this many shards are named.
_NAMED = 5


def damaged_shards(job: PreparedJob) -> Mapping[int, str]:
    """What is wrong with each damaged shard of a share that has been done, or that gets more rows; others are not
    looked through.

    Reads the result columns; not the columns that are carried over, which may be large.

    Raises:
        ShardError: the storage fails.
    """
    there = set(job.store.committed()).intersection(job.shards)
    if not job.store.is_complete() and not there.issuperset(job.shards):
        there.intersection_update(job.plan.cut)  # to get more rows, they are read
    return find_damaged(job.store, job.plan, there, result_columns(job.config))


def tell_missing(store: ShardStore, plan: Plan) -> None:
    """Where shards of a complete job are missing: name them, and remove `_SUCCESS`.

    Raises:
        ShardError: a shard cannot be read.
        RunError: the folder cannot be written to.
    """
    if not store.is_complete():
        return
    missing = sorted(set(range(plan.num_shards)) - complete_shards(store, plan))
    if missing:
        names = ", ".join(store.path(shard).name for shard in missing[:_NAMED])
        more = f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
        print(f"{store.folder} was complete and now lacks {names}{more}: made again", file=sys.stderr)
        _unmark(store)


def set_aside(job: PreparedJob, claims: Claims, damaged: Mapping[int, str]) -> None:
    """Move damaged shards into `.run_batch/damaged/`, unless another process is about to.

    Raises:
        RunError: the folder cannot be written to.
        ShardError: the storage fails.
    """
    store = job.store
    for shard in damaged:
        with storage_errors(f"{store.path(shard)} cannot be moved"):
            if not claims.take(shard):
                continue
            # It may have been made again since it was looked at.
            for found, why in find_damaged(store, job.plan, [shard], result_columns(job.config)).items():
                print(f"{store.path(found)} is damaged: {why}. It is made again", file=sys.stderr)
                _unmark(store)
                store.set_aside(found)
            claims.release(shard)


def _unmark(store: ShardStore) -> None:
    with storage_errors(f"_SUCCESS cannot be removed from {store.folder}"):
        store.unmark_success()
