"""What shards carry over of the input is read once, although shards become whole out of order."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from run_batch.io.inputs.parquet import ParquetSource
from run_batch.io.inputs.source import RowBatch
from run_batch.jobs.job.plan import Plan
from run_batch.jobs.results import carried_rows
from run_batch.jobs.results.carried_rows import CarriedRows

PLAN = Plan(95, 10)


class Spy:
    """A source that notes the rows that are read of it."""

    def __init__(self, folder: Path) -> None:
        pq.write_table(pa.table({"n": range(95), "text": ["x" * 100] * 95}), folder / "rows.parquet")
        self._source, self.reads = ParquetSource(str(folder / "rows.parquet")), list[int]()

    def cursor(self, columns: list[str], batch_rows: int) -> Any:
        self._cursor = self._source.cursor(columns, batch_rows)
        return self

    def read(self, start: int, stop: int) -> Iterator[RowBatch]:
        for batch in self._cursor.read(start, stop):
            self.reads += range(batch.start, batch.stop)
            yield batch


def carried(source: Any, first: int = 0, wanted: range = range(10)) -> CarriedRows:
    return CarriedRows(source, PLAN, ["n", "text"], first, wanted.__contains__)


def numbers(tables: Iterator[pa.Table]) -> list[int]:
    return [n for table in tables for n in table["n"].to_pylist()]


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 0, 1, 9, 4, 3, 8], [9, 8, 7, 6, 5, 4, 3, 2, 1, 0]])
def test_shards_in_any_order_have_their_own_rows_and_each_row_is_read_once(tmp_path: Path, order: list[int]) -> None:
    source = Spy(tmp_path)
    rows = carried(source)
    for shard in order:
        assert numbers(rows.read(shard)) == list(PLAN.rows(shard))
    assert source.reads == sorted(set(source.reads)), "rows were read twice, or backwards"


def test_shards_that_nobody_wants_are_passed_over(tmp_path: Path) -> None:
    source = Spy(tmp_path)
    rows = carried(source, first=2, wanted=range(4, 7))
    for shard in (6, 4):
        assert numbers(rows.read(shard)) == list(PLAN.rows(shard))
    assert source.reads == list(range(40, 70))


def test_what_is_kept_of_passed_shards_is_limited_in_rows_and_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Spy(tmp_path)
    monkeypatch.setattr(carried_rows, "_KEPT_BYTES", 3000)
    left = set(range(10))
    rows = CarriedRows(source, PLAN, ["n", "text"], 0, left.__contains__)
    for shard in (5, 4, 3, 0, 6):
        assert numbers(rows.read(shard)) == list(PLAN.rows(shard))
        left.remove(shard)
    assert [source.reads.count(row) for row in (5, 35, 45, 55, 65)] == [2, 1, 1, 1, 1]
    monkeypatch.setattr(carried_rows, "_ROWS_BEHIND", 25)
    source.reads.clear()
    list(carried(source).read(3))
    assert source.reads == list(range(30, 40))
