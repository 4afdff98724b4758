"""Which shards a process works on, one after the other: those of its share, then what it steals from other shares.

A shard is claimed when its turn comes, so the process that gets to it first has it.
"""

import time
from collections.abc import Collection, Iterator

from run_batch.io.coordination.claims import Claims
from run_batch.io.outputs.shards import ShardStore
from run_batch.jobs.job.shares import LOOK_SECONDS, Share
from run_batch.jobs.job.work import Work
from run_batch.jobs.results.shard_commits import CommittedShards
from run_batch.jobs.runner.work_planning import begin_shard, look_at, missing_work
from run_batch.jobs.runner.work_stealing import shards_to_steal

# Give up after this many lists of shards to steal, of which other processes took every shard first.
_LISTS_BEFORE_GIVING_UP = 3


class ShardAssignment:
    """The shards of this process, in the order in which they are to be read.

    Attributes:
        rows_assigned: rows to generate, or recovered, of the shards that were given out so far.
        rows_stolen: those of them that are of other shares.
    """

    def __init__(
        self, work: Work, share: Share, store: ShardStore, claims: Claims, begun: Collection[int] = ()
    ) -> None:
        """Claim nothing yet.

        Args:
            begun: shards that are claimed already, because some of their rows are recovered. Where all are, the shard
                may be committed before its turn comes.
        """
        self._begun = begun
        self._work, self._share, self._store, self._claims = work, share, store, claims
        self._own = share.shards(work.plan)
        self.rows_assigned = self.rows_stolen = 0

    def own(self) -> Iterator[int]:
        """Claim the shards of the work, one after the other; each that is given out is to be finished.

        Raises:
            OSError: the output folder cannot be read or written.
            ShardError: a shard cannot be read.
        """
        for shard in self._work.shards:
            if shard in self._begun:
                self.rows_assigned += len(self._work.rows(shard))
                yield shard
            elif self._claim(shard):
                yield shard

    def stolen(self) -> Iterator[int]:
        """Claim shards of other shares, one after the other; each that is given out is to be finished.

        Raises:
            OSError: the output folder cannot be read or written.
            ShardError: a shard cannot be read.
        """
        if self._work.is_retry:
            return  # a retry rewrites shards of its own share alone
        failed_lists = 0
        while failed_lists < _LISTS_BEFORE_GIVING_UP:
            shards = shards_to_steal(self._store, self._work.plan, self._share)
            if not shards:
                return
            failed_lists += 1
            for shard in shards:
                if not self._claim(shard):
                    break  # another process takes shards from the same list
                failed_lists = 0
                yield shard

    def _claim(self, shard: int) -> bool:
        """Claim a shard that is still to be committed; whether this process works on it now."""
        left = begin_shard(self._work, self._store, self._claims, shard)
        if left is None:
            return False
        rows = len(left.rows)
        self.rows_assigned += rows
        if shard not in self._own:
            self.rows_stolen += rows
        return True


def next_work(committed: CommittedShards, share: Share, store: ShardStore, claims: Claims) -> Work | None:
    """What a share has to do now, if only to help another one; None if there is nothing.

    While all that the share misses is claimed by other processes, this waits until they commit it, or die.

    Raises:
        ShardError: a shard cannot be read.
        OSError: the output folder cannot be read.
    """
    while True:
        committed.refresh()
        work = missing_work(committed)
        # Claims first: a shard that another process has committed since it was listed is free, but no work.
        has_work = any(claims.is_free(shard) and look_at(work, store, shard) is not None for shard in work.shards)
        if has_work or shards_to_steal(store, work.plan, share):
            return work
        if not work.shards:
            return None
        time.sleep(LOOK_SECONDS)
