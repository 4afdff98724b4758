"""What a run writes: a row is in the journal, then in its shard, and then nothing else is left of it."""

import dataclasses
import errno
import io
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from run_batch.io import transient
from run_batch.io.coordination.claims import Claims, claimed
from run_batch.io.outputs.journal import JournalWriter
from run_batch.io.outputs.shards import ShardStore
from run_batch.jobs.job.config import parse_config
from run_batch.jobs.job.errors import JobError, RunError
from run_batch.jobs.job.find_record import find_record
from run_batch.jobs.job.prepare import PreparedJob, prepare
from run_batch.jobs.job.rows import Generation, Pooled, RowFailure, RowResult, Timing, TokenLogprob
from run_batch.jobs.job.shares import Share
from run_batch.jobs.job.work import Work
from run_batch.jobs.results.journal_files import read_rows, segment_name, segments
from run_batch.jobs.results.journal_rows import JournalRow, encode_rows
from run_batch.jobs.results.shard_commits import CommittedShards, read_commit
from run_batch.jobs.runner.finished_rows import FinishedRows
from run_batch.jobs.runner.job_completion import exit_code
from run_batch.jobs.runner.resume import resume
from run_batch.jobs.runner.run_job import run_job
from run_batch.jobs.runner.run_outputs import open_output, withdraw
from run_batch.jobs.runner.share_lease import output_folder, share_lease
from run_batch.jobs.runner.work_planning import failed_work, missing_work


@pytest.fixture
def job(tmp_path: Path) -> PreparedJob:
    """Five rows in shards of two."""
    return prepared(tmp_path, {"prompt": [f"p{i}" for i in range(5)]})


def prepared(tmp_path: Path, columns: dict[str, Any], **more: dict[str, Any]) -> PreparedJob:
    """A job with shards of two rows."""
    pq.write_table(pa.table(columns), tmp_path / "rows.parquet")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    tables = {
        "input": {"path": "rows.parquet", "image_column": ""},
        "model": {"path": "model"},
        "output": {"path": "out", "rows_per_shard": 2, "columns": ["prompt"]},
        **more,
    }
    return prepare(parse_config(tables, tmp_path))


@pytest.mark.parametrize("calls", [0, 1, 2])
def test_an_output_folder_that_cannot_be_listed_ends_the_run_with_its_cause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: int
) -> None:
    job = prepared(tmp_path, {"prompt": ["p"]})
    job.store.create()
    left, scandir = calls, os.scandir

    def fail(path: Any = ".") -> Any:
        nonlocal left
        left -= str(path) == str(job.store.folder)
        if left < 0:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", fail)
    monkeypatch.setattr(transient, "STORAGE_PAUSES", (0.01, 0.02))
    with pytest.raises(RunError, match=r"^output\.path .* cannot be read: .*Stale file handle"):
        run_job(prepare(job.config), True, io.StringIO(), lambda config: pytest.fail("it goes on"))


@contextmanager
def opened(job: PreparedJob, committed: CommittedShards, work: Work) -> Iterator[tuple[FinishedRows, Claims]]:
    with output_folder(job.store), share_lease(job.store, job.share) as lease:
        claims = Claims(job.store.run_folder, lease)
        for shard in work.shards:
            assert claims.take(shard)
        finished = open_output(job, work, committed, claims, {"run_batch.model": "m"}, quiet=True)
        yield finished, claims
        finished.close()


def result(row: int) -> RowResult:
    return RowFailure(row, "bad", "why") if row == 3 else Generation(row, (f"t{row}",), "stop", 3, 1)


def run(job: PreparedJob, results: list[RowResult]) -> CommittedShards:
    committed = CommittedShards(job.store, job.plan, job.shards)
    with opened(job, committed, missing_work(committed)) as (finished, _):
        for row in results:
            finished.add(row)
    return committed


def test_a_shard_whose_rows_are_finished_is_committed_counted_and_released(job: PreparedJob) -> None:
    committed = CommittedShards(job.store, job.plan, job.shards)
    with opened(job, committed, missing_work(committed)) as (finished, _):
        for row in (1, 0, 2, 4):
            finished.add(result(row))
        finished.close()
        assert job.store.committed() == [0, 2]
        assert (committed.rows_done, committed.rows_failed, committed.missing()) == (3, 0, [1])
        assert claimed(job.store.run_folder) == {1}, "what is committed is claimed still, or what is not is no more"
    assert [r.row for s in segments(job.store) for _, r in read_rows(s, job_hash(job)) if r.row // 2 == 1] == [2]
    assert job.store.read(0)["text"].to_pylist() == ["t0", "t1"]
    assert job.store.read(0)["prompt"].to_pylist() == ["p0", "p1"]


def with_seed(job: PreparedJob) -> PreparedJob:
    """Another job in the same folder."""
    record = dataclasses.replace(job.record, identity={**job.record.identity, "sampling.seed": 1})
    return dataclasses.replace(job, record=record)


def job_hash(job: PreparedJob) -> str:
    return str(json.loads((job.store.run_folder / "job.json").read_text())["job_hash"])


def test_no_journal_is_left_once_all_its_shards_are_committed(job: PreparedJob) -> None:
    committed = run(job, [result(row) for row in range(5)])
    assert (committed.rows_done, committed.rows_failed, committed.missing()) == (5, 1, [])
    assert segments(job.store) == [] and claimed(job.store.run_folder) == set()


def test_a_retried_shard_is_committed_by_its_next_attempt_and_keeps_its_other_rows(job: PreparedJob) -> None:
    committed = run(job, [result(row) for row in range(5)])
    for attempt, again in enumerate((RowFailure(3, "worse", "y"), Generation(3, ("t3",), "stop", 3, 1)), 1):
        work = failed_work(job.store, committed)
        assert (list(work.shards), [work.rows(shard) for shard in work.shards]) == ([1], [[3]])
        with opened(job, committed, work) as (finished, _):
            finished.add(again)
        assert read_commit(job.store, 1).attempt == attempt
        assert job.store.read(1)["text"].to_pylist() == ["t2", None if attempt == 1 else "t3"]
    assert (committed.rows_done, committed.rows_failed) == (5, 0)
    assert failed_work(job.store, committed).shards == []


def test_a_row_that_a_retry_has_finished_is_in_the_journal_by_its_attempt(job: PreparedJob) -> None:
    rows: list[RowResult] = [RowFailure(row, "bad", "why") for row in range(4)]
    committed = run(job, [*rows, result(4)])
    with opened(job, committed, failed_work(job.store, committed)) as (finished, _):
        finished.add(Generation(0, ("t0",), "stop", 3, 1))
        finished.close()
        (segment,) = segments(job.store)
        assert [(attempt, row.row) for attempt, row in read_rows(segment, job_hash(job))] == [(1, 0)]


def test_the_footer_of_a_shard_tells_its_counts_and_its_job(job: PreparedJob) -> None:
    committed = run(job, [result(row) for row in range(5)])
    assert job.store.metadata(1)["run_batch.model"] == "m"
    assert [read_commit(job.store, 1)] == committed.with_failures()
    assert read_commit(job.store, 1).errors == {"bad": 1}


def test_a_text_is_compared_with_the_expected_one_and_kept(tmp_path: Path) -> None:
    expected = ["t0", "other", None, "t3", "t4"]
    job = prepared(tmp_path, {"prompt": ["p"] * 5, "answer": expected}, errors={"expected_column": "answer"})
    committed = run(job, [result(row) for row in range(5)])
    shards = [job.store.read(shard).to_pylist() for shard in range(3)]
    rows = [row for shard in shards for row in shard]
    assert [row["matches_expected"] for row in rows] == [True, False, None, None, True]
    assert [row["text"] for row in rows] == ["t0", "t1", "t2", None, "t4"]
    assert [row["error"] for row in rows] == [None, None, None, "bad: why", None]
    assert (committed.rows_failed, committed.rows_matching, committed.rows_mismatching) == (1, 2, 1)
    work = failed_work(job.store, committed)
    assert [work.rows(shard) for shard in work.shards] == [[3]], "a text that is not as expected has not failed"
    with opened(job, committed, work) as (finished, _):
        finished.add(Generation(3, ("t3",), "stop", 3, 1))
    assert (committed.rows_failed, committed.rows_matching, committed.rows_mismatching) == (0, 3, 1)
    assert job.store.read(1)["matches_expected"].to_pylist() == [None, True]


@pytest.mark.parametrize(("fraction", "code"), [(0.2, 3), (0.4, 0)])
def test_unexpected_texts_and_failed_rows_count_together_for_the_exit_code(
    tmp_path: Path, fraction: float, code: int
) -> None:
    expected = ["t0", "other", None, "t3", "t4"]
    job = prepared(tmp_path, {"prompt": ["p"] * 5, "answer": expected}, errors={"expected_column": "answer"})
    assert exit_code(run(job, [result(row) for row in range(5)]), fraction) == code


def test_a_job_that_could_not_begin_withdraws_its_own_record_and_no_other(job: PreparedJob) -> None:
    share = dataclasses.replace(job, store=ShardStore(job.store.folder, Share(0, 2).folder), share=Share(0, 2))
    record = job.store.run_folder / "job.json"
    with output_folder(share.store):
        share.write_record()
        withdraw(with_seed(share))
        assert record.exists()
        withdraw(share)
        assert not record.exists()
    assert not job.store.folder.exists(), "nothing has been written, and a folder is left"


def test_a_record_is_taken_over_from_a_job_that_has_left_nothing_and_runs_no_more(job: PreparedJob) -> None:
    other = with_seed(job)
    with output_folder(job.store):
        job.write_record()
        with share_lease(job.store, job.share), pytest.raises(JobError, match=r"sampling\.seed: \(not set\) -> 1"):
            other.write_record()
        before = sorted(job.store.run_folder.rglob("*"))
        assert find_record(job.store, other.record) is None and sorted(job.store.run_folder.rglob("*")) == before
        other.write_record()
        with share_lease(job.store, job.share), pytest.raises(JobError, match="another job"):
            find_record(job.store, job.record)
        job.store.commit(0, pa.table({"text": ["x", "y"]}), {})
        with pytest.raises(JobError, match="another job"):
            job.write_record()


def test_rows_of_a_retry_of_a_shard_that_was_made_anew_since_are_not_taken_for_those_of_this_one(
    job: PreparedJob,
) -> None:
    committed = run(job, [result(row) for row in range(5)])
    hashed, name = job_hash(job), segment_name(range(3), "all", "earlier")
    journal = JournalWriter[JournalRow](job.store.journal_folder, lambda shard: name, hashed, encode_rows)
    for row in (2, 3):  # row 2 had failed, then
        journal.append(1, (1, Generation(row, ("t",), "stop", 3, 1)))
    journal.close()
    with share_lease(job.store, job.share) as lease:
        found = resume(job, failed_work(job.store, committed), Claims(job.store.run_folder, lease))
    assert set(found.results) == {3}


@pytest.mark.parametrize("kept", ["generation", "pooled"])
def test_a_row_of_an_unfinished_shard_is_resumed_with_all_that_its_result_holds(job: PreparedJob, kept: str) -> None:
    position = (TokenLogprob(7, "a", -0.5, 1),)
    row: RowResult = Pooled(2, b"\0" * 8, 5)
    if kept == "generation":
        row = Generation(
            row=2,
            texts=("one", "two"),
            finish_reason="stop",
            prompt_tokens=3,
            generated_tokens=4,
            logprobs=((position,), ()),
            other_finish_reasons=("length",),
            token_ids=((5, 6), (7,)),
            stop_reasons=("###", None),
            prompt_logprobs=(None, position),
            timing=Timing(0.5, 0.25, 2.0),
        )
    run(job, [result(0), result(1), row])  # the other row of its shard is missing
    committed = CommittedShards(job.store, job.plan, job.shards)
    with share_lease(job.store, job.share) as lease:
        found = resume(job, missing_work(committed), Claims(job.store.run_folder, lease))
    assert found.results == {2: row}
