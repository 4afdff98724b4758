"""The cut of a job into shares: every shard once, evenly, and the same wherever it is worked out."""

import itertools
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

import jobs
from run_batch.io.outputs.shards import ShardStore
from run_batch.jobs.job.config import parse_config
from run_batch.jobs.job.errors import JobError
from run_batch.jobs.job.job_record import record_job
from run_batch.jobs.job.open_input import open_source
from run_batch.jobs.job.plan import Plan, dump_begins, load_begins, make_plan
from run_batch.jobs.job.prepare import describe_job
from run_batch.jobs.job.recorded_job import read_recorded_job
from run_batch.jobs.job.shares import WHOLE_JOB, Share, rows_in_vain, share_of


@given(st.integers(0, 100_000), st.integers(1, 2_000))
def test_shares_together_have_every_shard_once_and_as_many_as_each_other(shards: int, count: int) -> None:
    cut = [Share(index, count).shards(Plan(10 * shards, 10)) for index in range(count)]
    assert cut[0].start == 0 and cut[-1].stop == shards
    assert all(one.stop == next.start for one, next in itertools.pairwise(cut))
    assert max(map(len, cut)) - min(map(len, cut)) <= 1


def plan(folder: Path, shards: int, rows_per_shard: int, row_group: int) -> Plan:
    """The plan of a job over one file."""
    pq.write_table(pa.table({"n": range(shards * rows_per_shard)}), folder / "rows.parquet", row_group_size=row_group)
    tables = {"input": {"path": "rows.parquet"}, "model": {"path": "m"}, "output": {"path": "o"}}
    config = parse_config({**tables, "output": {"path": "o", "rows_per_shard": rows_per_shard}}, folder)
    return make_plan(config, open_source(config))


def test_shares_begin_where_row_groups_do_if_one_is_near(tmp_path: Path) -> None:
    # 400 shards of 5 rows; row groups of 67 rows, none of which begins with a shard.
    cut = plan(tmp_path, 400, 5, 67)
    starts = [Share(index, 4).shards(cut) for index in range(4)]
    assert sum(map(len, starts)) == 400 and [share.stop for share in starts[:3]] == [
        share.start for share in starts[1:]
    ]
    for share in starts:
        before = cut.rows(share.start).start % 67
        assert before < 5, f"share {share} begins {before} rows behind the beginning of its row group"
    assert all(abs(len(share) - 100) <= 100 / 8 for share in starts)
    assert rows_in_vain(cut, 4) == 0


def test_where_no_row_group_begins_near_shares_are_even_and_read_in_vain_what_lies_before(tmp_path: Path) -> None:
    one = plan(tmp_path, 400, 5, 2000)
    assert [Share(index, 4).shards(one) for index in range(4)] == [range(i, i + 100) for i in range(0, 400, 100)]
    assert rows_in_vain(one, 4) == 500 + 1000 + 1500 and one.largest_group == 2000
    assert rows_in_vain(one, 1) == 0


def test_row_groups_smaller_than_shards_leave_shares_even(tmp_path: Path) -> None:
    assert plan(tmp_path, 40, 50, 49) == Plan(2000, 50)


def test_check_and_submit_tell_what_shares_of_a_large_row_group_read_in_vain(tmp_path: Path) -> None:
    job = jobs.write_job(tmp_path, jobs.rows(40), output={"rows_per_shard": 2})
    submitted = jobs.run(job, "--tasks", "4", "--print", command="submit")
    assert submitted.returncode == 0
    assert "note: row groups hold up to 40 rows, more than a shard" in submitted.stderr
    assert "4 tasks read 60 rows in vain together" in submitted.stderr


def test_the_cut_of_a_job_is_recorded_with_it(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    cut = plan(tmp_path, 40, 5, 67)
    assert len(cut.begins) > 2
    tables = {
        "input": {"path": "rows.parquet", "image_column": ""},
        "prompt": {"template": "{n}"},
        "model": {"path": "model"},
        "output": {"path": "out"},
    }
    config = parse_config(tables, tmp_path)
    source, store = open_source(config), ShardStore(tmp_path / "out")
    store.create()
    record_job(store, replace(describe_job(config, source), plan=cut), b"")
    recorded = read_recorded_job(store)
    assert recorded is not None and recorded.plan == cut, "status counts other shards to a share than it works on"


@given(st.integers(1, 300), st.integers(1, 40), st.lists(st.integers(0, 299), max_size=9))
def test_shares_cut_at_row_groups_have_every_shard_once(shards: int, count: int, begins: list[int]) -> None:
    runs = tuple(range(begin, begin + 1) for begin in sorted({0, *(begin for begin in begins if begin < shards)}))
    cut = [Share(index, count).shards(Plan(10 * shards, 10, runs)) for index in range(count)]
    assert cut[0].start == 0 and cut[-1].stop == shards
    assert all(one.stop == next.start for one, next in itertools.pairwise(cut))
    assert load_begins(dump_begins(runs)) == runs


def test_a_share_is_known_by_its_label_and_the_whole_job_by_one_of_its_own() -> None:
    for share in (WHOLE_JOB, Share(3, 64), Share(63, 64)):
        assert share_of(share.label) == share
    assert WHOLE_JOB.label == "all" and Share(3, 64).label == "3-of-64"
    assert share_of("64-of-64") is None and share_of("tmp") is None


def test_there_is_no_share_beyond_the_last() -> None:
    for index, count in ((4, 4), (-1, 4)):
        with pytest.raises(JobError, match=f"no share {index} of {count}: shares are counted from 0 to 3"):
            Share(index, count)
    with pytest.raises(JobError, match="cannot be cut into 0 shares"):
        Share(0, 0)


def test_half_of_a_share_on_the_command_line_is_refused(tmp_path: Path) -> None:
    job = jobs.write_job(tmp_path, jobs.rows(1))
    alone = jobs.run(job, "--task-index", "0")
    assert alone.returncode == 2 and "--task-index and --task-count go together" in alone.stderr
    beyond = jobs.run(job, "--task-index", "2", "--task-count", "2")
    assert beyond.returncode == 2 and "counted from 0 to 1" in beyond.stderr and "Traceback" not in beyond.stderr
