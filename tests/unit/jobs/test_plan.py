"""Plan and resume: which rows make which shard, and what makes another job."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from run_batch.io.outputs.shards import ShardStore
from run_batch.jobs.job.columns import check_columns
from run_batch.jobs.job.config import JobConfig, parse_config
from run_batch.jobs.job.errors import JobError
from run_batch.jobs.job.input_source import open_source
from run_batch.jobs.job.job_identity import check_same_job, job_identity, record_job
from run_batch.jobs.job.plan import Plan
from run_batch.jobs.job.row_ids import check_ids


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rows = {"uid": ["a", "b", "c", "b"], "image": [b"x"] * 4, "prompt": ["p"] * 4, "error": ["e"] * 4}
    pq.write_table(pa.table(rows), tmp_path / "rows.parquet")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    return tmp_path


def job(folder: Path, **tables: dict[str, Any]) -> JobConfig:
    base = {"input": {"path": "rows.parquet"}, "model": {"path": "model"}, "output": {"path": "out"}}
    return parse_config({**base, **{k: {**base.get(k, {}), **v} for k, v in tables.items()}}, folder)


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
        check_columns(config, open_source(config).schema)
    assert said in str(caught.value) and (
        "the input has: uid, image" in str(caught.value) or "rename" in str(caught.value)
    )


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


def test_only_the_same_job_may_go_on_in_a_folder(folder: Path) -> None:
    config = job(folder, sampling={"max_tokens": 8})
    source = open_source(config)
    store = ShardStore(config.output_folder)
    store.create()
    check_same_job(store, job_identity(config, source))
    record_job(store, job_identity(config, source), Plan(4, 2), source)
    check_same_job(store, job_identity(job(folder, sampling={"max_tokens": 8}, preprocess={"workers": 2}), source))

    other = job_identity(job(folder, sampling={"max_tokens": 3, "seed": 1}), source)
    with pytest.raises(JobError, match=r"sampling\.max_tokens: 8 -> 3; sampling\.seed: \(not set\) -> 1"):
        check_same_job(store, other)
    (folder / "model" / "config.json").write_text('{"a": 1}')
    with pytest.raises(JobError, match=r"model\.path \(its files\)"):
        check_same_job(store, job_identity(config, source))


def test_what_stands_behind_the_names_of_a_job_is_part_of_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = job(folder, model={"plugins": ["plug_of_plan"]})
    source = open_source(config)
    store = ShardStore(config.output_folder)
    store.create()

    def changed() -> str:
        try:
            check_same_job(store, job_identity(config, source))
        except JobError as error:
            return str(error).partition("Changed: ")[2].partition(". Change")[0]
        return ""

    (folder / "plug_of_plan.py").write_text("")
    record_job(store, job_identity(config, source), Plan(4, 2), source)
    assert changed() == ""
    (folder / "plug_of_plan.py").write_text("x = 1")
    assert changed() == "model.plugins (their source): (other content) -> (other content)"
    (folder / "plug_of_plan.py").write_text("")
    monkeypatch.setattr("run_batch.jobs.job.job_identity.vllm_version", lambda: "0.1")
    assert changed().startswith("version of vLLM: '") and changed().endswith("' -> '0.1'")


def test_of_a_generation_config_the_settings_count_and_not_its_path(folder: Path) -> None:
    identities = []
    for name, content in (("a", '{"top_k": 5}'), ("b", '{"top_k": 5}'), ("c", '{"top_k": 6}'), ("d", '{"top_k": 6}')):
        (folder / name).mkdir()
        (folder / name / "generation_config.json").write_text(content.replace("}", ', "eos_token_id": [2, 3]}'))
        config = job(folder, engine={"generation_config": name})
        identities.append(job_identity(config, open_source(config)))
    by_key = job(folder, engine={"generation_config": "a", "override_generation_config": {"top_k": 6}})
    identities.append(job_identity(by_key, open_source(by_key)))
    assert identities[0] == identities[1] != identities[2] == identities[3] == identities[4]
    assert identities[0]["generation_config.eos_token_id"] == [2, 3]
    assert identities[0]["sampling.max_tokens"] is None


def test_other_weights_of_the_same_size_are_another_job(folder: Path) -> None:
    config = job(folder)
    weights = folder / "model" / "model.safetensors"
    identities = []
    for fill in (b"a", b"b"):
        weights.write_bytes(b"header" + fill * (3 << 20))
        identities.append(job_identity(config, open_source(config)))
    assert identities[0] != identities[1]


def test_other_rows_in_a_file_of_the_same_size_are_another_input(folder: Path) -> None:
    config = job(folder)
    fingerprints = set()
    for text in ("is it even?", "is it evem?"):
        pq.write_table(pa.table({"uid": ["a"], "prompt": [text], "image": [b"x"]}), folder / "rows.parquet")
        fingerprints.add((open_source(config).fingerprint, (folder / "rows.parquet").stat().st_size))
    assert len({size for _, size in fingerprints}) == 1 and len(fingerprints) == 2


def test_shards_of_unknown_origin_are_not_taken_for_results(folder: Path) -> None:
    config = job(folder)
    store = ShardStore(config.output_folder)
    store.folder.mkdir()
    (store.folder / "part-000000.parquet").touch()
    with pytest.raises(JobError, match="not of a run-batch job"):
        check_same_job(store, job_identity(config, open_source(config)))


@pytest.mark.parametrize("left", ["_run/job.json", "part-00000.parquet"])
def test_results_of_an_earlier_layout_are_refused_by_name(folder: Path, left: str) -> None:
    config = job(folder)
    store = ShardStore(config.output_folder)
    (store.folder / left).parent.mkdir(parents=True)
    (store.folder / left).touch()
    with pytest.raises(JobError, match=r"results of an earlier version of run-batch .*choose another output\.path"):
        check_same_job(store, job_identity(config, open_source(config)))
