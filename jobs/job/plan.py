"""Rows to shards: how many shards a job has, and which rows each of them holds."""

from dataclasses import dataclass

from run_batch.io.inputs.source import Source
from run_batch.jobs.job.config import JobConfig
from run_batch.jobs.job.errors import JobError


@dataclass(frozen=True, slots=True)
class Plan:
    """All rows of a job, cut into shards.

    Attributes:
        num_rows: rows of the job.
        rows_per_shard: rows of each shard but the last.
        cut: the shards in which earlier, shorter plans of the job end, as far as they may be committed with the rows
            of those alone.
    """

    num_rows: int
    rows_per_shard: int
    cut: tuple[int, ...] = ()

    @property
    def num_shards(self) -> int:
        """Shards of the job."""
        return -(-self.num_rows // self.rows_per_shard)

    def rows(self, shard: int) -> range:
        """The rows of a shard."""
        start = shard * self.rows_per_shard
        return range(start, min(start + self.rows_per_shard, self.num_rows))

    def shard_of(self, row: int) -> int:
        """The shard that holds a row."""
        return row // self.rows_per_shard

    def rows_in(self, shards: range) -> int:
        """How many rows consecutive shards hold together."""
        return (
            min(shards.stop * self.rows_per_shard, self.num_rows) - shards.start * self.rows_per_shard if shards else 0
        )

    def grown_to(self, num_rows: int) -> "Plan":
        """The plan of the same job with more rows."""
        last = {self.num_shards - 1} if self.num_rows % self.rows_per_shard else set[int]()
        return Plan(num_rows, self.rows_per_shard, tuple(sorted({*self.cut, *last})))


def make_plan(config: JobConfig, source: Source) -> Plan:
    """The plan of a job over its whole input.

    Raises:
        JobError: the input has no rows.
    """
    num_rows = source.num_rows if config.input.limit is None else min(source.num_rows, config.input.limit)
    if num_rows == 0:
        raise JobError(f"input.path {config.input.path}: the input has no rows")
    return Plan(num_rows, config.output.rows_per_shard)
