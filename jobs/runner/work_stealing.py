"""Work stealing: a share that is done takes over half of the shards that another, running share has not begun.

Like any process, it reads forwards: it takes the second half of the longest run of them, from where a row group begins,
if that is near. Where the two meet, whoever claims a shard first has it, and the one that helps looks for another run.

A share that was never started keeps its shards: it may be meant for later.
"""

import random
import time
from collections.abc import Sequence
from itertools import pairwise

from run_batch.io.coordination.claims import claimed
from run_batch.io.outputs.shards import ShardStore
from run_batch.jobs.job.plan import Plan
from run_batch.jobs.job.shares import LOOK_SECONDS, Share, begun_shares, is_running
from run_batch.jobs.results.shard_commits import complete_shards

# At most this many shares are asked whether they run: each question costs some file operations.
_SHARES_TO_ASK = 16
# By this part of their number, what is taken over may be more or less than half.
_DISTANCE = 8
# Shares that are started together begin within this time of each other.
_START_SECONDS = 5.0


def shards_to_steal(store: ShardStore, plan: Plan, share: Share) -> range:
    """Half of consecutive shards that another share, which runs, has not begun; none where there is no such share.

    Args:
        share: the one that is done.

    Raises:
        ShardError: a shard cannot be read.
        OSError: the output folder cannot be read.
    """
    begun = complete_shards(store, plan) | claimed(store.run_folder)
    left = {other: [s for s in other.shards(plan) if s not in begun] for other in _others(store, share)}
    left = {other: shards for other, shards in left.items() if shards}
    asked = 0
    while left and asked < _SHARES_TO_ASK:
        # The more is left, the likelier: shares that are done at the same time go to different ones.
        (other,) = random.choices(list(left), [len(shards) for shards in left.values()])
        shards = left.pop(other)
        asked += 1
        if is_running(store.run_folder, other):
            return _second_half(plan, _longest_run(shards))
    return range(0)


def _longest_run(shards: Sequence[int]) -> range:
    """The longest of the runs of consecutive ones among some shards, ascending."""
    cuts = [i for i in range(1, len(shards)) if shards[i] != shards[i - 1] + 1]
    runs = [range(shards[i], shards[j - 1] + 1) for i, j in pairwise([0, *cuts, len(shards)])]
    return max(runs, key=len)


def _second_half(plan: Plan, shards: range) -> range:
    middle = shards.start + len(shards) // 2
    return range(plan.nearest_begin(middle, len(shards) // _DISTANCE), shards.stop)


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
