"""What is checked before a job starts: its plan, columns, ids and folders."""

from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from job_configs import job, make_inputs

from run_batch.io.outputs.shards import ShardStore
from run_batch.jobs.job.columns import check_columns
from run_batch.jobs.job.errors import JobError
from run_batch.jobs.job.find_record import find_record
from run_batch.jobs.job.job_record import record_job
from run_batch.jobs.job.open_input import open_source
from run_batch.jobs.job.plan import Plan
from run_batch.jobs.job.prepare import describe_job
from run_batch.jobs.job.row_ids import check_ids


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_inputs(tmp_path)


def test_every_row_is_in_one_shard() -> None:
    for rows in (1, 9, 10, 11, 99):
        plan = Plan(rows, 10)
        shards = range(plan.num_shards)
        assert [row for shard in shards for row in plan.rows(shard)] == list(range(rows))
        assert all(plan.shard_of(row) == shard for shard in shards for row in plan.rows(shard))


def test_rows_of_consecutive_shards_are_counted_without_looking_at_each() -> None:
    for rows in (1, 9, 10, 11, 99):
        plan = Plan(rows, 10)
        for start in range(plan.num_shards + 1):
            for stop in range(start, plan.num_shards + 1):
                assert plan.rows_in(range(start, stop)) == sum(len(plan.rows(s)) for s in range(start, stop))


@pytest.mark.parametrize(
    ("tables", "said"),
    [
        ({"input": {"image_column": "imgae"}}, "input.image_column names column 'imgae'"),
        ({"input": {"id_column": "nope"}}, "input.id_column names column 'nope'"),
        ({"output": {"columns": ["nope"]}}, "output.columns names column 'nope'"),
        ({"output": {"columns": ["error"]}}, "output.columns: error is the name of a result column"),
        ({"errors": {"expected_column": "nope"}}, "errors.expected_column names column 'nope'"),
        ({"prompt": {"chat": True}, "input": {"prompt_column": "nope"}}, "input.prompt_column names column 'nope'"),
    ],
)
def test_keys_that_name_missing_columns_are_refused(folder: Path, tables: dict[str, Any], said: str) -> None:
    config = job(folder, **tables)
    with pytest.raises(JobError) as caught:
        check_columns(config, open_source(config))
    assert said in str(caught.value) and (
        "the input has: uid, image" in str(caught.value) or "rename" in str(caught.value)
    )


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        (["Error"], "Error differs from the result column error in upper and lower case alone"),
        (["ROW_ID"], "ROW_ID differs from the result column row_id"),
        (["uid", "prompt", "Uid"], "Uid differs from column uid in upper and lower case alone"),
        (["nothing"], "column nothing is struct<>, which Parquet files cannot hold: "),
        (["pair"], "column pair has the field 'k' twice in "),
    ],
)
def test_carried_columns_that_could_not_be_written_or_told_apart_are_refused(
    folder: Path, columns: list[str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = pa.StructArray.from_arrays([pa.array([1])] * 2, names=["k", "k"])
    rows = {name: ["a"] for name in ("uid", "Uid", "image", "prompt", "Error", "ROW_ID")}
    pq.write_table(pa.table({**rows, "pair": pairs}), folder / "rows.parquet")
    source = open_source(job(folder))
    check_columns(job(folder, output={"columns": ["Uid", "prompt"]}), source)
    monkeypatch.setattr(source, "schema", source.schema.append(pa.field("nothing", pa.struct([]))))
    with pytest.raises(JobError) as caught:
        check_columns(job(folder, output={"columns": columns}), source)
    assert said in str(caught.value)


def test_an_image_column_whose_type_is_never_an_image_is_refused_with_what_is_accepted(folder: Path) -> None:
    images = [{"data": b"x", "name": "a.png"}] * 2
    pq.write_table(pa.table({"image": images, "prompt": ["p"] * 2}), folder / "rows.parquet")
    with pytest.raises(JobError) as caught:
        check_columns(job(folder), open_source(job(folder)))
    assert str(caught.value) == (
        "input.image_column: column image is struct<data: binary, name: string>, which cannot hold images; expected "
        "bytes, text (paths, URLs, data: URLs or base64), a struct of bytes and path, a list of these, or lists of "
        "lists of numbers (features)"
    )


@pytest.mark.parametrize(
    "tables",
    [
        {"input": {"image_column": "x"}},
        {"input": {"id_column": "x"}},
        {"input": {"sampling_column": "x"}},
        {"input": {"prompt_column": "x"}},
        {"input": {"prompt_column": "x"}, "prompt": {"chat": True}},
        {"prompt": {"template": "{prompt} {x}"}},
        {"output": {"columns": ["prompt", "x"]}},
        {"errors": {"expected_column": "x"}},
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", ["missing", "twice", "other type"])
def test_a_column_that_cannot_be_read_from_all_files_is_refused_by_each_key_that_names_it(
    folder: Path, tables: dict[str, Any], kind: str
) -> None:
    rows = pa.table({"image": [b"x"], "prompt": ["p"], "other": [1]})
    texts = pa.array(["t"])
    pq.write_table(rows.append_column("x", texts), folder / "rows.parquet")
    reason = "is not in"
    if kind == "twice":
        rows, reason = rows.append_column("x", texts).append_column("x", texts), "occurs 2 times in"
    elif kind == "other type":
        rows, reason = rows.append_column("x", pa.array([b"t"])), "is string in .*rows.parquet, but binary in"
    pq.write_table(rows.drop_columns("other"), folder / "second.parquet")

    config = job(folder, **{**tables, "input": {"path": "*.parquet", **tables.get("input", {})}})
    with pytest.raises(JobError, match=rf"input\.path: column x {reason} .*second\.parquet; "):
        check_columns(config, open_source(config))
    config = job(folder, input={"path": "*.parquet"}, output={"columns": ["prompt"]})
    check_columns(config, open_source(config))


def test_ids_that_are_there_twice_or_null_are_refused_with_their_rows(folder: Path) -> None:
    config = job(folder, input={"id_column": "uid"})
    with pytest.raises(JobError, match="rows 1 and 3 have the same id 'b'"):
        check_ids(config, open_source(config), Plan(4, 2))
    pq.write_table(pa.table({"uid": ["a", None]}), folder / "rows.parquet")
    with pytest.raises(JobError, match="row 1 has no id"):
        check_ids(config, open_source(config), Plan(2, 2))


def test_an_id_that_is_not_utf8_is_refused_with_its_row(folder: Path) -> None:
    uids = pa.array([b"a", b"b", b"\xff\xfe", b"c"])
    text = pa.Array.from_buffers(pa.string(), len(uids), uids.buffers())
    pq.write_table(pa.table({"uid": text}), folder / "rows.parquet")
    config = job(folder, input={"id_column": "uid"})
    with pytest.raises(JobError, match="the id of row 2 is not UTF-8"):
        check_ids(config, open_source(config), Plan(4, 2))


@pytest.mark.parametrize("path", [".", "*.parquet", "**/*.parquet", "rows.parquet", "linked", "here/out/.."])
@pytest.mark.parametrize("output", ["out", "out/deep/er", "linked/out", "."])
def test_results_inside_the_input_do_not_become_part_of_it(folder: Path, path: str, output: str) -> None:
    (folder / "linked").symlink_to(".")
    (folder / "here").symlink_to(".")
    (folder / "out").mkdir()
    config = job(folder, input={"path": path}, output={"path": output})
    if output == ".":
        with pytest.raises(JobError, match=r"output\.path \.: .*rows\.parquet, which is part of the input, is in this"):
            open_source(config)
        return
    before = open_source(config)
    store = ShardStore(config.output_folder)
    store.create()
    record_job(store, describe_job(config, before), before.index)
    store.commit(0, pa.table({"row_id": ["a"], "text": ["t"]}), {})
    again = open_source(config)
    assert again.parts == before.parts
    assert find_record(store, describe_job(config, again)) is not None


def test_an_output_folder_that_holds_other_files_of_the_input_is_refused(folder: Path) -> None:
    (folder / "train").mkdir()
    pq.write_table(pa.table({"prompt": ["p"]}), folder / "train" / "rows.parquet")
    for output in ("train", "."):
        with pytest.raises(JobError, match=r"rows\.parquet, which is part of the input"):
            open_source(job(folder, input={"path": "."}, output={"path": output}))
    pq.write_table(pa.table({"prompt": ["p"]}), folder / "train" / "part-000000.parquet")
    (folder / "train" / "rows.parquet").unlink()
    with pytest.raises(JobError, match="no file of rows there but the results of this job"):
        open_source(job(folder, input={"path": "train"}, output={"path": "train"}))


def test_a_saved_dataset_in_the_output_folder_is_refused(folder: Path) -> None:
    datasets.Dataset.from_dict({"prompt": ["p"]}).save_to_disk(str(folder / "saved"))
    for output in ("saved", "."):
        with pytest.raises(JobError, match=r"saved, which is part of the input, is in this folder"):
            open_source(job(folder, input={"path": "saved"}, output={"path": output}))
    assert open_source(job(folder, input={"path": "saved"}, output={"path": "saved/out"})).num_rows == 1
