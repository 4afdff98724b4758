"""What a run has to do: the shards to commit, and of each the rows to generate.

Usually whole shards that are missing; with `--retry-failed`, the failed rows of shards that are there.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from run_batch.io.inputs.source import RowBatch, Source
from run_batch.io.outputs.shards import ShardStore
from run_batch.jobs.job.plan import Plan
from run_batch.jobs.job.prepare import PreparedJob

# Rows that nobody needs are read over, up to so many: opening the file again costs more.
_READ_OVER_ROWS = 256


@dataclass(frozen=True, slots=True)
class Work:
    """Attributes:
    shards: to commit, in order.
    retried: the rows to generate again, of shards that are committed already.
    attempts: how often each shard of `retried` has been committed.
    """

    plan: Plan
    shards: Sequence[int]
    retried: Mapping[int, Sequence[int]] = field(default_factory=dict)
    attempts: Mapping[int, int] = field(default_factory=dict)

    def rows(self, shard: int) -> Sequence[int]:
        """The rows to generate, in order."""
        return self.retried.get(shard) or self.plan.rows(shard)

    def attempt(self, store: ShardStore, shard: int) -> int | None:
        """How often a shard that is to be committed has been so before; None for one that is done."""
        if shard not in self.retried:
            return None if store.is_committed(shard) else 0
        attempt = self.attempts[shard]
        return attempt if store.info(shard).attempt < attempt else None

    @property
    def num_rows(self) -> int:
        return sum(len(self.rows(shard)) for shard in self.shards)


def missing_work(job: PreparedJob) -> Work:
    """Every shard of the share that is not committed."""
    return Work(job.plan, job.missing_shards)


def failed_work(job: PreparedJob) -> Work:
    """Every committed row of the share that has an error.

    Raises:
        ShardError: a shard cannot be read.
    """
    retried: dict[int, list[int]] = {}
    attempts: dict[int, int] = {}
    for shard in job.shards:
        info = job.store.info(shard)
        if info.failed:
            first = job.plan.rows(shard).start
            errors = job.store.read(shard, ["error"])["error"]
            retried[shard] = [first + i for i, error in enumerate(errors.to_pylist()) if error is not None]
            attempts[shard] = info.attempt + 1
    return Work(job.plan, list(retried), retried, attempts)


def read_rows(
    source: Source, rows: Sequence[int], columns: Sequence[str], batch_rows: int, with_ids: bool
) -> Iterator[RowBatch]:
    """Some rows of the input, in order, in batches of consecutive ones.

    Args:
        with_ids: fill in the batches' row ids, for an input without an id column.

    Raises:
        InputError: a file is damaged or has gone.
    """
    for part in _parts(rows):
        wanted = set(part) if len(part) < part[-1] + 1 - part[0] else None
        for batch in source.read(part[0], part[-1] + 1, columns, batch_rows):
            if with_ids:
                batch = replace(batch, row_ids=source.row_names(batch.start, batch.stop))
            if wanted is None:
                yield batch
            else:
                yield from _only(batch, wanted)


def _parts(rows: Sequence[int]) -> Iterator[Sequence[int]]:
    """Cut where reading over what lies between costs more than opening the file again."""
    begin = 0
    for i in range(1, len(rows) + 1):
        if i == len(rows) or rows[i] - rows[i - 1] > _READ_OVER_ROWS:
            yield rows[begin:i]
            begin = i


def _only(batch: RowBatch, wanted: Collection[int]) -> Iterator[RowBatch]:
    begin: int | None = None
    for offset in range(batch.records.num_rows + 1):
        inside = offset < batch.records.num_rows and batch.start + offset in wanted
        if inside and begin is None:
            begin = offset
        elif not inside and begin is not None:
            yield batch.slice(begin, offset - begin)
            begin = None
