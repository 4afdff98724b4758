"""What a run generates: the shards it commits, and of each the rows that it generates.

Usually whole shards that are missing. Of shards that are committed already: the rows that a job got after its earlier
plan had ended in one of them, or, with `--retry-failed`, the rows that failed.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from run_batch.jobs.job.plan import Plan


class Left(NamedTuple):
    """What is left of a shard.

    Attributes:
        rows: to generate, ascending; those of the shard that are not among them are committed, and are kept.
        attempt: how often the shard has been committed.
    """

    rows: Sequence[int]
    attempt: int = 0


@dataclass(frozen=True, slots=True)
class Work:
    """Shards to commit.

    Attributes:
        shards: their indices, ascending.
        is_retry: whether rows are generated again that failed, and no others.
        left: of shards that are committed, what is left of them. One that another process commits meanwhile, by an
            earlier plan of the job, is added when its turn comes.
    """

    plan: Plan
    shards: Sequence[int]
    is_retry: bool = False
    left: dict[int, Left] = field(default_factory=dict)

    def left_of(self, shard: int) -> Left:
        """What is left of a shard."""
        return self.left.get(shard) or Left(self.plan.rows(shard))

    def rows(self, shard: int) -> Sequence[int]:
        """The rows of a shard to generate, ascending."""
        return self.left_of(shard).rows

    def attempt(self, shard: int) -> int:
        """How often a shard will have been committed before this run commits it."""
        return self.left_of(shard).attempt

    def takes(self, left: Left, row: int, attempt: int) -> bool:
        """Whether a row of a journal is a result of what is left of its shard.

        One that a shorter plan had no place for was in no shard that has been committed, whatever its attempt.
        """
        return row in left.rows and (attempt == left.attempt or (attempt < left.attempt and not self.is_retry))
