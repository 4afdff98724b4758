"""The rows that a report shows, sampled from few shards: what that takes does not grow with the number of shards."""

import contextlib
import heapq
import random
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from run_batch.io.outputs.shards import ShardError, ShardStore
from run_batch.jobs.job.plan import Plan
from run_batch.jobs.results.shard_commits import Commit
from run_batch.jobs.watch.answer_logprobs import LOGPROB_COLUMNS, LOGPROBS, AnswerLogprob, answer_logprob
from run_batch.jobs.watch.report_numbers import Numbers

# Shards that are read for random rows, unless they are small; and more of them, for rows that failed or mismatch.
_SHARDS, _SHARDS_OF_A_KIND = 16, 4
# Of the rows shown, those of each kind but random ones.
_PART_OF_A_KIND = 4
# In the order in which they are chosen.
KINDS = ("failed", "mismatching", "longest", "slowest", "random")
_SCANNED = ("generated_tokens", "error", "matches_expected")
SHOWN = ("row_id", "text", "score", "finish_reason", "prompt_tokens", "generated_tokens", "error", "matches_expected")
_CARRIED_COLUMNS = 8
_SMALL = (
    *(pa.types.is_string, pa.types.is_large_string, pa.types.is_boolean, pa.types.is_integer, pa.types.is_floating),
    *(pa.types.is_decimal, pa.types.is_date, pa.types.is_timestamp),
)
# Of cells that may be some megabytes each, fewer are read at once.
_BATCH_ROWS, _LARGE_BATCH_ROWS = 128, 8
# Log probabilities of long answers may be gigabytes in a shard.
_LOGPROB_SECONDS = 60.0
# Of a text; the page shows less.
_CHARACTERS = 5000


@dataclass(slots=True)
class SampledRow:
    """A row of the report.

    Attributes:
        row: its index in the input.
        kinds: why it is shown: `random`, `failed`, `mismatching`, `longest`, `slowest`.
        cells: its result columns, and some carried ones, long texts cut.
        seconds: that it was in the engine, where it is one of the slowest.
        logprob: of its answer, where the job asks for log probabilities and they tell.
    """

    row: int
    kinds: list[str]
    cells: dict[str, Any] = field(default_factory=dict)
    seconds: float | None = None
    logprob: AnswerLogprob | None = None


@dataclass(slots=True)
class Sample:
    """What a report tells of sampled shards.

    Attributes:
        rows: ascending.
        shards: how many shards were read for random rows.
        unreadable: what is wrong with shards that were to be read.
    """

    rows: list[SampledRow] = field(default_factory=list)
    shards: int = 0
    unreadable: list[str] = field(default_factory=list)


class _Reservoir:
    """Some of many rows: those with the greatest keys."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._kept: list[tuple[float, int]] = []

    def add(self, key: float, row: int) -> None:
        if len(self._kept) < self._size:
            heapq.heappush(self._kept, (key, row))
        elif self._kept:
            heapq.heappushpop(self._kept, (key, row))

    def rows(self) -> list[int]:
        return [row for _, row in sorted(self._kept, reverse=True)]


def sample_rows(
    store: ShardStore, plan: Plan, commits: Mapping[int, Commit], rows: int, seed: int, numbers: Numbers
) -> Sample:
    """Choose rows of committed shards, and read them.

    Args:
        commits: of the shards that are committed.
        rows: most rows that are chosen.
        seed: of the random choice.
        numbers: what is known of all rows.
    """
    chance, sample = random.Random(seed), Sample()
    shards = sorted(commits)
    wanted = max(_SHARDS, -(-rows // plan.rows_per_shard))
    plain = set(chance.sample(shards, min(wanted, len(shards))))
    failing = [shard for shard in shards if commits[shard].failed]
    mismatching = [shard for shard in shards if commits[shard].mismatching]
    others = [chance.sample(few, min(_SHARDS_OF_A_KIND, len(few))) for few in (failing, mismatching)]
    few = -(-rows // _PART_OF_A_KIND)
    kept = {name: _Reservoir(rows if name == "random" else few) for name in KINDS}
    for shard in sorted(plain.union(*others)):
        with _noting(sample):
            cells = (found for batch in store.batches(shard, _SCANNED) for found in _scanned(batch))
            for row, found in enumerate(cells, plan.rows(shard).start):
                _keep(kept, row, found, chance.random(), is_random=shard in plain)
            sample.shards += shard in plain
    for tokens, row in numbers.longest:
        kept["longest"].add(tokens, row)
    for seconds, row in numbers.slowest:
        kept["slowest"].add(seconds, row)
    sample.rows = _chosen(kept, rows)
    slowest = {row: seconds for seconds, row in numbers.slowest}
    for chosen in sample.rows:
        chosen.seconds = slowest.get(chosen.row)
    _fill(store, plan, sample)
    return sample


@contextlib.contextmanager
def _noting(sample: Sample) -> Iterator[None]:
    """Note a shard that cannot be read, and go on."""
    try:
        yield
    except ShardError as error:
        if str(error) not in sample.unreadable:
            sample.unreadable.append(str(error))


def _scanned(batch: pa.RecordBatch) -> Iterator[dict[str, Any]]:
    """The cells of a batch, of errors only whether there is one: they may be long."""
    names = batch.schema.names
    columns = [batch.column(n).is_valid() if n == "error" else batch.column(n) for n in names]
    for cells in zip(*(column.to_pylist() for column in columns), strict=True):
        yield dict(zip(names, cells, strict=True))


def _keep(kept: Mapping[str, _Reservoir], row: int, cells: Mapping[str, Any], key: float, is_random: bool) -> None:
    if is_random:
        kept["random"].add(key, row)
    if cells["error"]:
        kept["failed"].add(key, row)
    elif cells.get("matches_expected") is False:
        kept["mismatching"].add(key, row)
    if cells.get("generated_tokens"):
        kept["longest"].add(cells["generated_tokens"] + key, row)


def _chosen(kept: Mapping[str, _Reservoir], rows: int) -> list[SampledRow]:
    """The rows of each kind, and random ones as many as there is room for; ascending."""
    chosen: dict[int, SampledRow] = {}
    few = -(-rows // _PART_OF_A_KIND)
    for kind, reservoir in kept.items():
        for row in reservoir.rows()[: rows if kind == "random" else few]:
            if row in chosen:
                chosen[row].kinds = list(dict.fromkeys([*chosen[row].kinds, kind]))
            elif len(chosen) < rows:
                chosen[row] = SampledRow(row, [kind])
    return [chosen[row] for row in sorted(chosen)]


def _fill(store: ShardStore, plan: Plan, sample: Sample) -> None:
    """Read what is shown of the rows; leave out those whose shard cannot be read any more."""
    by_shard: dict[int, dict[int, SampledRow]] = {}
    until = time.monotonic() + _LOGPROB_SECONDS
    for chosen in sample.rows:
        by_shard.setdefault(plan.shard_of(chosen.row), {})[chosen.row] = chosen
    for shard, rows in by_shard.items():
        with _noting(sample):
            start = plan.rows(shard).start
            names = (*SHOWN, *_carried(store.schema(shard)))
            for batch in store.batches(shard, names, _BATCH_ROWS):
                for row in rows.keys() & set(range(start, start + batch.num_rows)):
                    rows[row].cells = _shown(batch, row - start)
                start += batch.num_rows
            if time.monotonic() < until:
                _add_logprobs(store, shard, plan.rows(shard).start, rows)
            else:
                sample.unreadable.append(f"the log probabilities of shard {shard} are left out: reading took too long")
    sample.rows = [row for row in sample.rows if row.cells]


def _add_logprobs(store: ShardStore, shard: int, start: int, rows: Mapping[int, SampledRow]) -> None:
    """Add the log probabilities of answers, where the shard has them."""
    if LOGPROBS not in store.schema(shard).names:
        return
    for batch in store.batches(shard, LOGPROB_COLUMNS, _LARGE_BATCH_ROWS):
        for row in rows.keys() & set(range(start, start + batch.num_rows)):
            rows[row].logprob = answer_logprob(batch, row - start)
        start += batch.num_rows
        if start > max(rows):
            return


def _carried(schema: pa.Schema) -> list[str]:
    """The first columns of the input that a shard carries and whose cells are small: no images, lists or structs."""
    names = [field.name for field in schema if any(kind(field.type) for kind in _SMALL)]
    return [name for name in names if name not in SHOWN][:_CARRIED_COLUMNS]


def _shown(batch: pa.RecordBatch, place: int) -> dict[str, Any]:
    cells = {name: batch.column(name)[place].as_py() for name in batch.schema.names}
    return {name: cell[:_CHARACTERS] if isinstance(cell, str) else cell for name, cell in cells.items()}
