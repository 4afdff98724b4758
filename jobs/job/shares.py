"""Shares: one job cut between processes that know nothing of each other but the folder they write to.

The cut depends on nothing but the number of shards and of shares, so every process finds the same one by itself. A
share is a stretch of consecutive shards: its process reads its part of the input once, from front to back.
"""

import re
from dataclasses import dataclass

from run_batch.jobs.job.errors import JobError

SHARES_FOLDER = "shares"


@dataclass(frozen=True, slots=True)
class Share:
    """Share `index` of `count`, counted from 0. Share 0 of 1 is the whole job.

    Raises:
        JobError: there is no such share.
    """

    index: int
    count: int

    def __post_init__(self) -> None:
        if self.count < 1:
            raise JobError(f"a job cannot be cut into {self.count} shares")
        if not 0 <= self.index < self.count:
            raise JobError(f"no share {self.index} of {self.count}: shares are counted from 0 to {self.count - 1}")

    @property
    def label(self) -> str:
        """What its files are called: shares of the same job with different labels do not block each other."""
        return "all" if self.count == 1 else f"{self.index}-of-{self.count}"

    @property
    def folder(self) -> str:
        """Where its files lie, below the folder of the run."""
        return "" if self.count == 1 else f"{SHARES_FOLDER}/{self.label}"

    def shards(self, num_shards: int) -> range:
        """Its shards: all shares together have every shard once, and as many as each other, give or take one."""
        return range(num_shards * self.index // self.count, num_shards * (self.index + 1) // self.count)


WHOLE_JOB = Share(0, 1)


def share_of(label: str) -> Share | None:
    """The share that goes by a label, or None."""
    if label == WHOLE_JOB.label:
        return WHOLE_JOB
    match = re.fullmatch(r"(\d+)-of-(\d+)", label)
    return Share(int(match[1]), int(match[2])) if match and int(match[1]) < int(match[2]) else None
