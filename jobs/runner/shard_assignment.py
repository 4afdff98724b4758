"""Which shards a process works on, one after the other: those of its share, then what other shares have not begun.

A shard is claimed when its turn comes, so whoever gets to it first has it. A process whose own shards are done takes
shards from the far end of another's; only from one that is running: what nobody has begun may be meant for later.
"""

import os
import queue
import random
from collections.abc import Iterator

from run_batch.io.coordination.claims import Claims, claimed
from run_batch.io.coordination.lease import is_held
from run_batch.jobs.job.plan import job_hash
from run_batch.jobs.job.prepare import PreparedJob
from run_batch.jobs.job.rows import RowResult
from run_batch.jobs.job.shares import SHARES_FOLDER, WHOLE_JOB, Share, share_of
from run_batch.jobs.job.work import Work
from run_batch.jobs.results.recovery import recover

# Of so many shares it is asked whether they run, whatever their number: each question costs some file operations.
_SHARES_TO_ASK = 16
# Lists of shards that turn out to be taken, every one of them, before it is believed that nothing is left.
_VAIN_LISTS = 3


class Assignment:
    """The shards of this process, in the order in which they are to be read.

    Attributes:
        rows_taken: rows to generate, or recovered, of the shards that were given out so far.
        rows_helped: those of them that are of other shares.
        recovered: rows of them that a process which has died meanwhile had finished.
    """

    def __init__(self, job: PreparedJob, work: Work, claims: Claims) -> None:
        self._job, self._work, self._claims = job, work, claims
        self.rows_taken = self.rows_helped = 0
        self.recovered: queue.SimpleQueue[dict[int, RowResult]] = queue.SimpleQueue()

    def __iter__(self) -> Iterator[int]:
        """Claim shard after shard; each is to be finished once it was given out.

        Raises:
            OSError: the output folder cannot be read or written.
        """
        for shard in self._work.shards:
            if self._take(shard):
                yield shard
        if self._work.retried:
            return
        vain = 0
        while vain < _VAIN_LISTS and (others := shards_to_help_with(self._job)):
            vain += 1
            for shard in others:
                if not self._take(shard):
                    break  # somebody else is here
                vain = 0
                yield shard

    def recover(self, shard: int, done: dict[int, RowResult]) -> dict[int, RowResult]:
        """Finished rows of a shard that was given out: what is known of it already, or else what a dead process left.

        Args:
            done: rows that were recovered before any shard was given out.
        """
        rows = self._job.plan.rows(shard)
        known = {row: done[row] for row in rows if row in done}
        if known or not self._claims.took_over(shard):
            return known
        attempt = self._work.attempt(self._job.store, shard)
        job = self._job
        found = recover(
            job.store, job_hash(job.identity), job.plan, range(shard, shard + 1), lambda _: attempt, job.share.label
        ).results
        if found:
            self.recovered.put(found)
        return found

    def _take(self, shard: int) -> bool:
        if not self._claims.take(shard):
            return False
        # Committed and released by another process since it was listed.
        if self._work.attempt(self._job.store, shard) is None:
            self._claims.release(shard)
            return False
        rows = len(self._work.rows(shard))
        self.rows_taken += rows
        if shard not in self._job.shards:
            self.rows_helped += rows
        return True


def shards_to_help_with(job: PreparedJob) -> list[int]:
    """Half of the shards that another share, which is running, has not begun: those that it would come to last.

    Raises:
        OSError: the output folder cannot be read.
    """
    begun = {*job.store.committed(), *claimed(job.store.run_folder)}
    left = {share: [s for s in share.shards(job.plan.num_shards) if s not in begun] for share in _others(job)}
    left = {share: shards for share, shards in left.items() if shards}
    asked = 0
    while left and asked < _SHARES_TO_ASK:
        # The more is left, the likelier: helpers that come at the same time go to different shares.
        (share,) = random.choices(list(left), [len(shards) for shards in left.values()])
        shards = left.pop(share)
        asked += 1
        if is_held(job.store.run_folder / share.folder, share.label):
            return shards[len(shards) // 2 :][::-1]
    return []


def _others(job: PreparedJob) -> list[Share]:
    """All other shares that have ever been begun."""
    folder = job.store.run_folder / SHARES_FOLDER
    labels = [entry.name for entry in os.scandir(folder)] if folder.is_dir() else []
    shares = [WHOLE_JOB, *filter(None, map(share_of, labels))]
    return [share for share in shares if share != job.share]
