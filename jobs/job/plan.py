"""Rows to shards: how many shards a job has, which rows each of them holds, and at which of them reading can begin."""

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from run_batch.io.inputs.source import Source
from run_batch.jobs.job.config import JobConfig
from run_batch.jobs.job.errors import JobError


@dataclass(frozen=True, slots=True)
class Plan:
    """All rows of a job, cut into shards.

    Attributes:
        num_rows: rows of the job.
        rows_per_shard: rows of each shard but the last.
        begins: runs of shards at which a process can begin to read: of what lies before such a shard it reads less than
            a shard's rows, because a row group begins there. Ascending; empty if all shards are.
        cut: the shards in which earlier, shorter plans of the job end, as far as they may be committed with the rows
            of those alone.
    """

    num_rows: int
    rows_per_shard: int
    begins: tuple[range, ...] = ()
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

    def following(self, earlier: "Plan") -> "Plan":
        """This plan, of a job that has had an earlier one."""
        last = {earlier.num_shards - 1} if earlier.num_rows % earlier.rows_per_shard else set[int]()
        return replace(self, cut=tuple(shard for shard in sorted({*earlier.cut, *last}) if shard < self.num_shards))

    def nearest_begin(self, shard: int, distance: int) -> int:
        """The shard nearest to another one at which reading can begin, or that one, if none is within `distance`."""
        place = bisect_right(self.begins, shard, key=lambda run: run.start)
        if not self.begins or shard in self.begins[place - 1]:
            return shard
        around = [self.begins[place - 1][-1], *(run.start for run in self.begins[place : place + 1])]
        nearest = min(around, key=lambda begin: abs(begin - shard))
        return nearest if abs(nearest - shard) <= distance else shard

    def rows_before(self, shard: int) -> int:
        """How many rows a process that begins with a shard reads in vain, less than a shard's rows apart."""
        place = bisect_right(self.begins, shard, key=lambda run: run.start)
        if not self.begins or shard in self.begins[place - 1]:
            return 0
        return (shard - self.begins[place - 1][-1]) * self.rows_per_shard

    @property
    def largest_group(self) -> int:
        """How many rows the largest row group holds that begins in one of `begins`, in whole shards."""
        stops = [run.start for run in self.begins[1:]] + [self.num_shards]
        groups = (range(run[-1], stop) for run, stop in zip(self.begins, stops, strict=True))
        return max(map(self.rows_in, groups), default=0)


def make_plan(config: JobConfig, source: Source) -> Plan:
    """The plan of a job over its whole input.

    Raises:
        JobError: the input has no rows.
    """
    num_rows = source.num_rows if config.input.limit is None else min(source.num_rows, config.input.limit)
    if num_rows == 0:
        raise JobError(f"input.path {', '.join(config.input_paths)}: the input has no rows")
    per_shard = config.output.rows_per_shard
    return Plan(num_rows, per_shard, _begins(source.starts(), num_rows, per_shard))


def _begins(starts: Iterable[range], num_rows: int, rows_per_shard: int) -> tuple[range, ...]:
    """The runs of shards that begin with, or shortly after, one of some rows; none if all shards do."""
    runs: list[range] = []
    for rows in starts:
        for run in _begin_at(rows[: max(0, -(-(num_rows - rows.start) // rows.step))], rows_per_shard):
            if runs and run.start <= runs[-1].stop:
                runs[-1] = range(runs[-1].start, max(run.stop, runs[-1].stop))
            else:
                runs.append(run)
    last = -(-num_rows // rows_per_shard)
    runs = [range(run.start, min(run.stop, last)) for run in runs if run.start < last]
    return () if runs == [range(last)] else tuple(runs)


def _begin_at(rows: range, rows_per_shard: int) -> Iterator[range]:
    """Of each of some rows, the first shard that does not begin before it; those that follow each other are one run."""
    if rows and rows.step <= rows_per_shard:
        yield range(-(-rows[0] // rows_per_shard), -(-rows[-1] // rows_per_shard) + 1)
        return
    for row in rows:
        shard = -(-row // rows_per_shard)
        yield range(shard, shard + 1)


def dump_begins(begins: Iterable[range]) -> str:
    """`Plan.begins` as text, such as `0,8-12,20`."""
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in begins)


def load_begins(text: str) -> tuple[range, ...]:
    """Read what `dump_begins` wrote.

    Raises:
        ValueError: it is something else.
    """
    ends = [run.split("-") for run in text.split(",") if text]
    return tuple(range(int(run[0]), int(run[-1]) + 1) for run in ends)
