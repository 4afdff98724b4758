"""Work stealing: a share that is done takes over half of the shards that another, running share has not begun.

A share that was never started keeps its shards: it may be meant for later.
"""

import random
import time

from run_batch.io.coordination.claims import claimed
from run_batch.io.outputs.shards import ShardStore
from run_batch.jobs.job.plan import Plan
from run_batch.jobs.job.shares import LOOK_SECONDS, Share, begun_shares, is_running
from run_batch.jobs.results.shard_commits import complete_shards

# At most this many shares are asked whether they run: each question costs some file operations.
_SHARES_TO_ASK = 16
# Shares that are started together begin within this time of each other.
_START_SECONDS = 5.0


def shards_to_steal(store: ShardStore, plan: Plan, share: Share) -> list[int]:
    """Half of the shards that another share, which runs, has not begun, in the reverse of its own order; [] for none.

    Args:
        share: the one that is done.

    Raises:
        ShardError: a shard cannot be read.
        OSError: the output folder cannot be read.
    """
    begun = complete_shards(store, plan) | claimed(store.run_folder)
    left = {other: [s for s in other.shards(plan.num_shards) if s not in begun] for other in _others(store, share)}
    left = {other: shards for other, shards in left.items() if shards}
    asked = 0
    while left and asked < _SHARES_TO_ASK:
        # The more is left, the likelier: shares that are done at the same time go to different ones.
        (other,) = random.choices(list(left), [len(shards) for shards in left.values()])
        shards = left.pop(other)
        asked += 1
        if is_running(store.run_folder, other):
            return shards[len(shards) // 2 :][::-1]
    return []


def can_steal(store: ShardStore, plan: Plan, share: Share) -> bool:
    """Whether there is a share to take shards from: now, or in a moment, once those that start now have begun.

    Raises:
        ShardError: a shard cannot be read.
        OSError: the output folder cannot be read.
    """
    until = time.monotonic() + _START_SECONDS
    while share.count > 1 and len(complete_shards(store, plan)) < plan.num_shards:
        if shards_to_steal(store, plan, share):
            return True
        if time.monotonic() > until:
            break
        time.sleep(LOOK_SECONDS)
    return False


def _others(store: ShardStore, share: Share) -> list[Share]:
    """All other shares that have ever been begun."""
    return [other for other in begun_shares(store.run_folder) if other != share]
