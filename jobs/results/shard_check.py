"""Reads committed shards to the end, to find those that are truncated or damaged."""

from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor

from run_batch.io.outputs.shards import DamagedShardError, ShardStore
from run_batch.jobs.job.plan import Plan

_READERS = 8


def find_damaged(
    store: ShardStore, plan: Plan, shards: Iterable[int], columns: Collection[str] | None = None
) -> Mapping[int, str]:
    """What is wrong with each shard that is damaged; empty where none is.

    Args:
        shards: committed ones.
        columns: read only these columns; all when left out.

    Raises:
        ShardError: the storage fails.
    """

    def problem(shard: int) -> str:
        try:
            rows = store.count_rows(shard, columns)
        except DamagedShardError as error:
            return error.reason
        expected = len(plan.rows(shard))
        # By an earlier plan of the job it has fewer rows, by a later one more.
        is_of_other_plan = (rows < expected and shard in plan.cut) or (rows > expected and shard == plan.num_shards - 1)
        return "" if rows == expected or is_of_other_plan else f"it has {rows} rows instead of {expected}"

    listed = list(shards)
    with ThreadPoolExecutor(max_workers=_READERS) as pool:
        return {shard: why for shard, why in zip(listed, pool.map(problem, listed), strict=True) if why}
