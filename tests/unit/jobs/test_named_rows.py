"""`run-batch try --row ID`: rows of the input, found by their ids."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from trials import COUNT, opened, tried

import jobs
from run_batch.io.inputs.source import RowBatch
from run_batch.jobs.job.errors import JobError
from run_batch.jobs.trial.named_rows import find_rows


def test_rows_are_named_by_their_ids_or_by_file_and_row(tmp_path: Path) -> None:
    found, _ = tried(opened(tmp_path / "a"), ids=("u00017", "u00003", "u00017"))
    assert [row["row"] for row in found["rows"]] == [3, 17]
    (tmp_path / "b" / "in").mkdir(parents=True)
    table = pa.table(jobs.rows(COUNT))
    pq.write_table(table.slice(0, 9), tmp_path / "b" / "in" / "x.parquet")
    pq.write_table(table.slice(9), tmp_path / "b" / "in" / "y.parquet")
    job = opened(tmp_path / "b", pa.table({"unused": [1]}), input={"path": "in", "id_column": None})
    found, _ = tried(job, ids=("y.parquet:2", "x.parquet:8"))
    assert [(row["row"], row["row_id"]) for row in found["rows"]] == [(8, "x.parquet:8"), (11, "y.parquet:2")]
    assert jobs.QUESTIONS[11 % 3] in found["rows"][1]["prompt"]


def test_ids_that_are_numbers_are_named_as_the_results_have_them(tmp_path: Path) -> None:
    job = opened(tmp_path, {**jobs.rows(COUNT), "uid": list(range(100, 100 + COUNT))})
    assert [row["row_id"] for row in tried(job, ids=("104",))[0]["rows"]] == ["104"]


def test_an_id_column_without_ids_is_the_jobs_fault(tmp_path: Path) -> None:
    job = opened(tmp_path, {**jobs.rows(3), "uid": [[1], [2], [3]]})
    for trial in ({"rows": 1}, {"ids": ("1",)}):
        with pytest.raises(JobError, match=r"input\.id_column uid: "):
            tried(job, **trial)


@pytest.mark.parametrize("ids", [("u00003", "no\x1b[2Jne"), ("u00019",), ("\udcff",)])
def test_a_row_that_the_job_does_not_have_is_named(tmp_path: Path, ids: tuple[str, ...]) -> None:
    job = opened(tmp_path, input={"limit": 10})
    with pytest.raises(JobError, match=r"--row '.*': column uid has no row with this id; the first row's is 'u00000'"):
        tried(job, ids=ids)


class Spy:
    """A source that notes what is read."""

    def __init__(self, source: Any) -> None:
        self._source, self.reads = source, list[tuple[list[str], int]]()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)

    def cursor(self, columns: Sequence[str], batch_rows: int) -> Any:
        self._columns, self._cursor = list(columns), self._source.cursor(columns, 5)
        return self

    def read(self, start: int, stop: int) -> Iterator[RowBatch]:
        for batch in self._cursor.read(start, stop):
            self.reads.append((self._columns, batch.start))
            yield batch


def test_of_the_input_the_id_column_alone_is_read_up_to_the_row(tmp_path: Path) -> None:
    job = opened(tmp_path)
    spy = Spy(job.source)
    job = replace(job, source=spy)
    assert find_rows(job, ["u00007", "u00001"]) == [1, 7]
    assert spy.reads == [(["uid"], 0), (["uid"], 5)]
