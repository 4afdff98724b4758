"""What is left to do: rows that journals have are left out, and others' rows are never taken for ours."""

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from job_configs import job

from run_batch.io.outputs.journal import JournalWriter
from run_batch.io.outputs.shards import ShardStore
from run_batch.jobs.job.open_input import open_source
from run_batch.jobs.job.plan import Plan
from run_batch.jobs.job.row_reader import RowReader
from run_batch.jobs.job.rows import Generation, RowFailure
from run_batch.jobs.job.work import Left, Work
from run_batch.jobs.results.journal_files import segment_name
from run_batch.jobs.results.journal_rows import JournalRow, encode_rows
from run_batch.jobs.results.recovery import Recovered, recover

PLAN = Plan(30, 10)


@pytest.mark.parametrize(
    "wanted", [[0], [999], [3, 4, 5], [0, 2, 900, 999], list(range(0, 1000, 7)), [*range(500), *range(990, 1000)]]
)
def test_exactly_the_rows_that_are_asked_for_are_read(tmp_path: Path, wanted: list[int]) -> None:
    pq.write_table(pa.table({"n": list(range(1000))}), tmp_path / "a.parquet", row_group_size=64)
    config = job(tmp_path, input={"path": "a.parquet", "image_column": ""}, prompt={"template": "{n}"})
    batches = list(RowReader(config, open_source(config), 16).read(wanted))
    found = [n for batch in batches for n in batch.records["n"].to_pylist()]
    assert found == wanted
    assert all(batch.records["n"][0].as_py() == batch.start for batch in batches)
    assert [row_id for batch in batches for row_id in batch.row_ids or ()] == [f"a.parquet:{n}" for n in wanted]


def journal(store: ShardStore, writer_name: str, job: str, rows: list[JournalRow], label: str = "all") -> None:
    name = segment_name(range(3), label, writer_name)
    writer = JournalWriter[JournalRow](store.journal_folder, lambda shard: name, job, encode_rows)
    for attempt, result in rows:
        writer.append(result.row // 10, (attempt, result))
    writer.close()


def text(row: int, value: str) -> Generation:
    return Generation(row, (value,), "stop", 1, 1)


@pytest.fixture
def store(tmp_path: Path) -> ShardStore:
    store = ShardStore(tmp_path / "out")
    store.create()
    store.journal_folder.mkdir()
    return store


def read(store: ShardStore, shards: range, left_of: Callable[[int], Left | None], is_retry: bool = False) -> Recovered:
    return recover(store, "job", Work(PLAN, shards, is_retry), shards, left_of)


def whole(shard: int) -> Left:
    return Left(PLAN.rows(shard))


def test_a_row_in_two_journals_counts_once_and_anothers_job_not_at_all(store: ShardStore) -> None:
    journal(store, "a", "job", [(0, text(3, "x")), (0, text(14, "y"))])
    journal(store, "b", "job", [(0, text(3, "x")), (0, RowFailure(25, "kind", "why"))])
    journal(store, "c", "another", [(0, text(4, "z"))])
    found = read(store, range(3), whole)
    assert found.results == {3: text(3, "x"), 14: text(14, "y"), 25: RowFailure(25, "kind", "why")}
    committed = read(store, range(3), lambda shard: None if shard == 0 else whole(shard))
    assert set(committed.results) == {14, 25}
    assert [shards for _, shards in committed.segments] == [{1}, {2}]


def test_rows_of_an_earlier_attempt_are_not_taken_for_those_of_a_later_one(store: ShardStore) -> None:
    journal(store, "first", "job", [(0, RowFailure(3, "kind", "first"))])
    journal(store, "retry", "job", [(1, RowFailure(3, "kind", "retry")), (1, text(4, "x"))])
    assert read(store, range(3), {0: Left([3, 4, 5], 2)}.get, is_retry=True).results == {}
    assert set(read(store, range(3), {0: Left([3, 4, 5], 1)}.get, is_retry=True).results) == {3, 4}


def test_of_a_shard_that_got_more_rows_those_that_no_commit_has_are_taken_whenever_they_were_made(
    store: ShardStore,
) -> None:
    # Row 14 was committed since; row 16 was generated when the shard had not been committed with fewer rows yet.
    journal(store, "a", "job", [(0, text(14, "x")), (0, text(16, "x")), (1, text(17, "x")), (2, text(18, "x"))])
    assert set(read(store, range(3), {1: Left(range(15, 20), 1)}.get).results) == {16, 17}


def test_rows_of_a_longer_plan_are_left_to_the_processes_that_have_it(store: ShardStore) -> None:
    journal(store, "longer", "job", [(0, text(28, "x")), (0, text(31, "x")), (0, text(44, "x"))])
    found = read(store, range(3), whole)
    assert set(found.results) == {28}


def test_journals_of_other_shares_are_read_and_left_to_them(store: ShardStore) -> None:
    journal(store, "ours", "job", [(0, text(3, "x"))], "0-of-2")
    journal(store, "theirs", "job", [(0, text(4, "x")), (0, text(13, "x"))], "1-of-2")
    found = read(store, range(1), whole)
    assert set(found.results) == {3, 4}
    assert {segment.label: shards for segment, shards in found.segments} == {"0-of-2": {0}, "1-of-2": {0, 1}}
