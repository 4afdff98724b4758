"""Which inputs a job can go on with, and what is said where it cannot."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from growing_jobs import begun, configured, make_inputs, write

from run_batch.io.files import create_file
from run_batch.io.outputs.journal import SUFFIX
from run_batch.jobs.job.errors import JobError
from run_batch.jobs.job.plan import Plan
from run_batch.jobs.job.prepare import prepare
from run_batch.jobs.runner.share_lease import share_lease


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_inputs(tmp_path)


def test_a_plan_knows_the_shards_in_which_the_earlier_ones_of_the_job_end() -> None:
    first = Plan(10, 4)
    second = Plan(14, 4).following(first)
    assert (second.num_rows, second.cut) == (14, (2,))
    assert Plan(99, 4).following(second).cut == (2, 3)
    assert Plan(99, 4).following(Plan(8, 4)).cut == (), (
        "the shards of the earlier plan have all rows that they can have"
    )


@pytest.mark.parametrize(
    ("limit", "change", "rows"),
    [
        (12, lambda inputs: None, 20),
        (5, lambda inputs: None, 20),
        (None, lambda inputs: write(inputs / "e.parquet", 3), 23),
        (None, lambda inputs: write(inputs / "e" / "a.parquet", 3), 23),
        (15, lambda inputs: write(inputs / "e.parquet", 3), 23),
        (10, lambda inputs: write(inputs / "c.parquet", 3), 23),  # before a file that no row was taken of
        (10, lambda inputs: (inputs / "d.parquet").unlink(), 10),
        (None, lambda inputs: write(inputs / "a.parquet", 0), 20),  # without rows
        (None, lambda inputs: shutil.copy(inputs / "b.parquet", inputs / "again.tmp"), 20),
    ],
)
def test_an_input_that_begins_with_the_same_rows_is_gone_on_with(
    folder: Path, limit: int | None, change: Callable[[Path], None], rows: int
) -> None:
    before = begun(folder, input={"limit": limit} if limit else {})
    change(folder / "in")
    job = prepare(configured(folder))
    assert (job.plan.num_rows, job.is_replanned, job.recorded_rows) == (
        rows,
        rows > before.plan.num_rows,
        before.plan.num_rows,
    )
    assert job.record.job_hash == before.record.job_hash
    assert job.write_record().plan.num_rows == rows


def keep_first_column(file: Path) -> None:
    pq.write_table(pq.read_table(file).set_column(1, "prompt", pa.array(["other"] * 10)), file)


@pytest.mark.parametrize(
    ("tables", "change", "said"),
    [
        (
            {"input": {"limit": 8}},
            lambda inputs: None,
            r"\(input\.limit: 12 -> 8\): input\.limit is 8, and the job has 12 rows already\. Raise it to 12 or more",
        ),
        (
            {},
            lambda inputs: write(inputs / "c.parquet"),
            r"c\.parquet comes before d\.parquet, whose rows have their numbers already\. Rename it, so that it sorts "
            r"after d\.parquet",
        ),
        ({}, lambda inputs: write(inputs / "a.parquet"), r"a\.parquet comes before b\.parquet, .* after d\.parquet"),
        (
            {},
            lambda inputs: (inputs / "b.parquet").unlink(),
            r"b\.parquet is not among its files any more\. Put it back",
        ),
        (
            {},
            lambda inputs: (inputs / "d.parquet").unlink(),
            r"d\.parquet is not among its files any more \(10 rows instead of 12\)\. Put it back",
        ),
        (
            {},
            lambda inputs: keep_first_column(inputs / "d.parquet"),
            r"d\.parquet has other content now\. Put the old one back; rows to add belong in a file that sorts last",
        ),
        (
            {},
            lambda inputs: (inputs / "b.parquet").rename(inputs / "c.parquet"),
            r"b\.parquet is not among its files any more",
        ),
        (
            {"input": {"path": "in/d.parquet"}},
            lambda inputs: None,
            r"input\.path: 'in' -> 'in/d\.parquet'.*b\.parquet is",
        ),
    ],
)
def test_an_input_whose_first_rows_are_others_is_refused_with_the_reason_and_the_way_out(
    folder: Path, tables: dict[str, Any], change: Callable[[Path], None], said: str
) -> None:
    job = begun(folder, input={"limit": 12})
    change(folder / "in")
    with pytest.raises(JobError, match=said) as caught:
        prepare(configured(folder, **tables))
    assert str(caught.value).startswith(
        f"{job.store.folder} holds 12 rows of this job, done or planned, and cannot go on"
    )
    assert str(caught.value).endswith(", or choose another output.path")


def test_a_part_of_a_split_may_become_the_whole_of_it(folder: Path) -> None:
    for name in ("train", "test"):
        write(folder / "splits" / f"{name}.parquet")
    begun(folder, input={"path": "splits", "split": "train[:40%]"})
    assert prepare(configured(folder, input={"path": "splits", "split": "train"})).is_replanned
    assert prepare(configured(folder, input={"path": "splits", "split": "train+test"})).plan.num_rows == 20
    for split, said in (
        ("train[2:]", r"of train\.parquet, rows 2 to 9 are asked for now, and were rows 0 to 3\. Ask for those again"),
        ("test", r"train\.parquet is not among its files any more"),
        ("train[:20%]", r"rows 0 to 1 are asked for now, and were rows 0 to 3"),
    ):
        with pytest.raises(JobError, match=rf"input\.split: 'train\[:40%\]' -> .*{said}"):
            prepare(configured(folder, input={"path": "splits", "split": split}))


@pytest.mark.parametrize(
    ("tables", "said"),
    [
        ({"output": {"rows_per_shard": 5}}, r"output\.rows_per_shard: 4 -> 5\. Change it back to resume, or choose"),
        ({"output": {"columns": ["uid"]}}, r"output\.columns: \['prompt'\] -> \['uid'\]"),
        ({"prompt": {"template": "{prompt}!"}}, r"prompt\.template: '\{prompt\}' -> '\{prompt\}!'"),
    ],
)
def test_another_job_is_refused_whatever_its_rows(folder: Path, tables: dict[str, Any], said: str) -> None:
    begun(folder, output={"columns": ["prompt"]})
    write(folder / "in" / "e.parquet")
    with pytest.raises(JobError, match=rf"holds the results of another job\. Changed: .*{said}"):
        prepare(configured(folder, **{**tables, "output": {"columns": ["prompt"], **tables.get("output", {})}}))


def test_files_that_bring_another_type_for_a_carried_column_are_refused(folder: Path) -> None:
    write(folder / "in" / "d.parquet", score=pa.array([1] * 10, pa.int32()))
    write(folder / "in" / "b.parquet", score=pa.array([1] * 10, pa.int32()))
    begun(folder, output={"columns": ["score"]})
    write(folder / "in" / "e.parquet", score=pa.array([1] * 10, pa.int64()))
    with pytest.raises(JobError, match=r"output\.columns \(type of score\): 'int32' -> 'int64'"):
        prepare(configured(folder, output={"columns": ["score"]}))


@pytest.mark.parametrize(
    ("before", "now", "said"),
    [
        (pa.int32(), pa.float64(), "'integer' -> 'double'"),  # 1 would be 1.0 in old rows, too
        (pa.float32(), pa.float64(), "'float' -> 'double'"),
        (pa.int8(), pa.int64(), ""),
        (pa.string(), pa.large_string(), ""),
        (pa.dictionary(pa.int8(), pa.string()), pa.string(), ""),
        (pa.struct([("a", pa.int8())]), pa.struct([("a", pa.int64()), ("b", pa.string())]), ""),
        (pa.struct([("a", pa.int8())]), pa.struct([("a", pa.float32())]), "'integer' -> 'float'"),
    ],
    ids=str,
)
def test_files_that_change_how_old_rows_read_are_refused_and_others_are_not(
    folder: Path, before: pa.DataType, now: pa.DataType, said: str
) -> None:
    for name in ("b", "d"):
        write(folder / "in" / f"{name}.parquet", score=pa.nulls(10, before))
    field = "score.a" if pa.types.is_struct(before) else "score"
    begun(folder, prompt={"template": f"{{prompt}} {{{field}}}"})
    write(folder / "in" / "e.parquet", score=pa.nulls(10, now))
    try:
        prepare(configured(folder, prompt={"template": f"{{prompt}} {{{field}}}"}))
        assert not said
    except JobError as error:
        assert said and f"input.path (type of {field}): {said}" in str(error)


def test_the_ids_of_new_rows_are_checked_with_the_old_ones(folder: Path) -> None:
    begun(folder)
    shutil.copy(folder / "in" / "b.parquet", folder / "in" / "e.parquet")
    with pytest.raises(JobError, match=r"input\.id_column uid: rows 0 and 20 have the same id 'b0'"):
        prepare(configured(folder))


def test_of_two_larger_inputs_the_second_one_has_to_go_on_from_the_first(folder: Path) -> None:
    begun(folder)
    write(folder / "in" / "e.parquet")
    first = prepare(configured(folder))
    write(folder / "in" / "f.parquet")
    second = prepare(configured(folder))
    (folder / "in" / "e.parquet").unlink()
    other = prepare(configured(folder))
    first = first.write_record()
    assert first.plan.cut == (), "20 rows fill five shards"
    assert second.write_record().plan.cut == (7,)
    with pytest.raises(JobError, match=r"e\.parquet is not among its files any more"):
        other.write_record()
    # The first one has begun, and does what it has begun with.
    assert first.write_record().plan.num_rows == 30
    names = sorted(path.name for path in first.store.run_folder.glob("plan-*.json"))
    assert names == ["plan-1.json", "plan-2.json", "plan-3.json"]


def test_rows_that_were_added_by_mistake_are_taken_back_as_long_as_none_of_them_is_finished(folder: Path) -> None:
    job = begun(folder, input={"limit": 10})
    for path in job.store.journal_folder.iterdir():
        path.unlink()
    for shard in range(3):
        job.store.commit(shard, pa.table({"n": range(len(job.plan.rows(shard)))}), {})
    write(folder / "in" / "e.parquet")
    grown = prepare(configured(folder)).write_record()
    (folder / "in" / "e.parquet").unlink()
    with share_lease(grown.store, grown.share), pytest.raises(JobError, match=r"e\.parquet is not among its files"):
        prepare(configured(folder))
    (grown.store.journal_folder / f"2-2.all.x-00000{SUFFIX}").touch()
    with pytest.raises(JobError, match=r"e\.parquet is not among its files"):
        prepare(configured(folder))
    (grown.store.journal_folder / f"2-2.all.x-00000{SUFFIX}").unlink()

    for limit, rows in ((None, 20), (10, 10)):
        again = prepare(configured(folder, input={"limit": limit} if limit else {}))
        assert again.is_replanned and again.write_record().plan.num_rows == rows
    again.store.commit(2, pa.table({"n": range(3)}), {})
    prepare(configured(folder, input={"limit": 11})).write_record()
    with pytest.raises(JobError, match=r"input\.limit is 10, and the job has 11 rows already"):
        prepare(configured(folder, input={"limit": 10}))


def test_a_plan_that_was_torn_while_it_was_written_counts_for_nothing(folder: Path) -> None:
    job = begun(folder)
    whole = (job.store.run_folder / "plan-1.json").read_bytes()
    for size in (0, 1, len(whole) // 2, len(whole) - 1):
        (job.store.run_folder / "plan-2.json").unlink(missing_ok=True)
        create_file(job.store.run_folder / "plan-2.json", whole[:size])
        assert prepare(configured(folder)).recorded_rows == 20
    write(folder / "in" / "e.parquet")
    prepare(configured(folder)).write_record()
    assert (job.store.run_folder / "plan-3.json").exists() and prepare(configured(folder)).recorded_rows == 30


def test_growing_takes_the_marks_of_a_complete_job_away(folder: Path) -> None:
    job = begun(folder)
    job.store.mark_success()
    (job.store.run_folder / "summary.json").write_text("{}")
    prepare(configured(folder)).write_record()
    assert job.store.is_complete(), "it has no more rows"
    write(folder / "in" / "e.parquet")
    prepare(configured(folder))
    assert job.store.is_complete(), "nothing is written before the job begins"
    prepare(configured(folder)).write_record()
    assert not job.store.is_complete() and not (job.store.run_folder / "summary.json").exists()


def test_an_input_on_another_file_system_is_the_same_by_its_names(folder: Path) -> None:
    begun(folder)
    shutil.move(folder / "in", folder / "elsewhere")
    write(folder / "elsewhere" / "e.parquet")
    for path in (
        "elsewhere",
        f"file://{folder}/elsewhere",
        f"{folder}/elsewhere/*.parquet",
        f"local://{folder}/elsewhere",
    ):
        assert prepare(configured(folder, input={"path": path})).plan.num_rows == 30, path
    # Names below the root are row ids: another folder above the files makes others.
    os.makedirs(folder / "deeper")
    shutil.move(folder / "elsewhere", folder / "deeper" / "in")
    with pytest.raises(JobError, match=r"b\.parquet is not among its files any more"):
        prepare(configured(folder, input={"path": "deeper"}))
