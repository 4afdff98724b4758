"""What a run generates: the shards it commits, and of each the rows that it generates.

Usually whole shards that are missing; with `--retry-failed`, the failed rows of shards that are committed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from run_batch.jobs.job.plan import Plan


@dataclass(frozen=True, slots=True)
class Work:
    """Shards to commit.

    Attributes:
        shards: their indices, ascending.
        retried: the rows to generate again, of shards that are committed already.
        attempts: how often each shard of `retried` has been committed.
    """

    plan: Plan
    shards: Sequence[int]
    retried: Mapping[int, Sequence[int]] = field(default_factory=dict)
    attempts: Mapping[int, int] = field(default_factory=dict)

    def rows(self, shard: int) -> Sequence[int]:
        """The rows of a shard to generate, ascending."""
        return self.retried[shard] if shard in self.retried else self.plan.rows(shard)

    def attempt(self, shard: int) -> int:
        """How often a shard will have been committed before this run commits it."""
        return self.attempts.get(shard, 0)
