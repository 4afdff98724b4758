"""What makes another job, and which output folders belong to the same one."""

import json
import shutil
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from job_configs import job, make_inputs

from run_batch.io.outputs.shards import ShardStore
from run_batch.jobs.job.config import JobConfig
from run_batch.jobs.job.errors import JobError
from run_batch.jobs.job.find_record import find_record
from run_batch.jobs.job.job_identity import job_identity
from run_batch.jobs.job.job_record import record_job
from run_batch.jobs.job.open_input import open_source
from run_batch.jobs.job.prepare import describe_job
from run_batch.jobs.job.recorded_job import JobRecord, read_recorded_job
from run_batch.jobs.watch.job_folder import JobFolder
from run_batch.jobs.watch.report import write_report
from run_batch.jobs.watch.status import read_status


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_inputs(tmp_path)


def described(config: JobConfig) -> JobRecord:
    return describe_job(config, open_source(config))


def recorded(config: JobConfig) -> ShardStore:
    """The output folder of a job that has finished a row."""
    store = ShardStore(config.output_folder)
    store.create()
    record_job(store, described(config), b"")
    store.journal_folder.mkdir()
    (store.journal_folder / "0-0.all.x-00000.journal").touch()
    return store


def refusal(store: ShardStore, config: JobConfig) -> str:
    try:
        find_record(store, described(config))
    except JobError as error:
        return str(error)
    return ""


def test_only_the_same_job_may_go_on_in_a_folder(folder: Path) -> None:
    config = job(folder, sampling={"max_tokens": 8})
    store = recorded(config)
    assert refusal(store, job(folder, sampling={"max_tokens": 8}, preprocess={"workers": 2})) == ""
    assert refusal(store, job(folder, sampling={"max_tokens": 8}, model={"mapper": "vllm"})) == ""

    said = refusal(store, job(folder, sampling={"max_tokens": 3, "seed": 1}))
    assert "sampling.max_tokens: 8 -> 3; sampling.seed: (not set) -> 1. Change it back to resume" in said
    (folder / "model" / "config.json").write_text('{"a": 1}')
    assert "Changed: model.path (its files): other content. Change" in refusal(store, config)


def test_what_stands_behind_the_names_of_a_job_is_part_of_it(folder: Path) -> None:
    config = job(folder, model={"plugins": ["plug_of_plan"]}, prompt={"chat": True, "tools": "tools.json"})
    files = {"plug_of_plan.py": "", "tools.json": "[]"}
    for name, text in files.items():
        (folder / name).write_text(text)
    store = recorded(config)
    changed = {"plug_of_plan.py": "model.plugins (their source)", "tools.json": "prompt.tools (their text)"}
    for name, key in changed.items():
        (folder / name).write_text('[{"x": 1}]')
        assert f"Changed: {key}: other content. Change" in refusal(store, config)
        (folder / name).write_text(files[name])
    assert refusal(store, config) == ""


def test_the_same_content_under_other_paths_is_the_same_job(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    chat = {"chat": True, "chat_template": "t.jinja", "tools": "tools.json"}
    example = {"image": "x.png", "text": "a", "answer": "b"}
    for name, text in (("t.jinja", "{{ messages }}"), ("tools.json", "[]"), ("x.png", "png")):
        (folder / name).write_text(text)
    config = job(folder, prompt={**chat, "examples": [example]}, engine={"tokenizer": str(folder / "model")})
    store = recorded(config)
    other = tmp_path_factory.mktemp("other") / "deeper"
    shutil.copytree(folder, other)
    # What downloads and imports put beside a model.
    for book in (".cache/huggingface/download/config.json.metadata", ".gitattributes", "__pycache__/m.cpython-311.pyc"):
        (other / "model" / book).parent.mkdir(parents=True, exist_ok=True)
        (other / "model" / book).write_text("x")
    moved = job(
        folder,
        input={"path": str(other / "rows.parquet")},
        model={"path": str(other / "model")},
        prompt={
            "chat": True,
            "chat_template": str(other / "t.jinja"),
            "tools": str(other / "tools.json"),
            "examples": [{**example, "image": str(other / "x.png")}],
        },
        engine={"tokenizer": str(other / "model")},
    )
    assert refusal(store, moved) == ""
    assert described(moved).job_hash == described(config).job_hash
    for name, key in (
        ("t.jinja", "prompt.chat_template (its text)"),
        ("x.png", "prompt.examples (their images)"),
        ("model/config.json", "engine.tokenizer (its files): other content; model.path (its files)"),
    ):
        before = (other / name).read_text()
        (other / name).write_text('{"x": 1}')
        assert f"Changed: {key}: other content. Change" in refusal(store, moved)
        (other / name).write_text(before)


def test_a_data_set_of_hugging_face_may_move_and_its_limit_grow(folder: Path) -> None:
    datasets.Dataset.from_dict({"image": [b"x"] * 9, "prompt": ["p"] * 9}).save_to_disk(str(folder / "saved"))
    store = recorded(job(folder, input={"path": "saved", "limit": 4}))
    shutil.move(folder / "saved", folder / "moved")
    assert refusal(store, job(folder, input={"path": "moved"})) == ""
    assert "input.limit is 3, and the job has 4 rows already" in refusal(
        store, job(folder, input={"path": "moved", "limit": 3})
    )
    datasets.Dataset.from_dict({"image": [b"x"] * 10, "prompt": ["p"] * 10}).save_to_disk(str(folder / "saved"))
    assert "train has other content now" in refusal(store, job(folder, input={"path": "saved"}))


def test_another_version_of_vllm_goes_on_with_a_job_and_is_told_and_noted_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = job(folder)
    store = recorded(config)
    first = described(config).versions[0]
    monkeypatch.setattr("run_batch.jobs.job.content.vllm_version", lambda: "9.9")
    for _ in range(2):
        record_job(store, described(config), b"")
    said = capsys.readouterr().err
    assert said.count(f"another version goes on with this job than began it: vLLM: '{first['vLLM']}' -> '9.9'") == 1
    found = read_recorded_job(store)
    assert found is not None and list(found.versions) == [first, {**first, "vLLM": "9.9"}]


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
    found = set()
    for text in ("is it even?", "is it evem?"):
        pq.write_table(pa.table({"uid": ["a"], "prompt": [text], "image": [b"x"]}), folder / "rows.parquet")
        found.add((tuple(open_source(config).parts), (folder / "rows.parquet").stat().st_size))
    assert len({size for _, size in found}) == 1 and len(found) == 2


def test_shards_of_unknown_origin_are_not_taken_for_results(folder: Path) -> None:
    config = job(folder)
    store = ShardStore(config.output_folder)
    store.folder.mkdir()
    (store.folder / "part-000000.parquet").touch()
    with pytest.raises(JobError, match="not of a run-batch job"):
        find_record(store, described(config))


@pytest.mark.parametrize("left", ["_run/job.json", "part-00000.parquet"])
def test_results_of_an_earlier_layout_are_refused_by_name(folder: Path, left: str) -> None:
    config = job(folder)
    store = ShardStore(config.output_folder)
    (store.folder / left).parent.mkdir(parents=True)
    (store.folder / left).touch()
    with pytest.raises(JobError, match=r"results of an earlier version of run-batch .*choose another output\.path"):
        find_record(store, described(config))


def test_a_record_of_an_earlier_layout_is_refused_by_name(folder: Path) -> None:
    config = job(folder)
    store = recorded(config)
    content = {"job_hash": "x", "identity": {}, "rows": 4, "rows_per_shard": 2}
    (store.run_folder / "job.json").write_text(json.dumps(content))
    assert "results of an earlier version of run-batch (job.json with its rows), which this" in refusal(store, config)


@pytest.mark.parametrize("command", [read_status, lambda config: write_report(JobFolder.of(config))])
def test_status_and_report_refuse_a_folder_of_an_earlier_layout(folder: Path, command: Any) -> None:
    config = job(folder)
    (folder / "out" / "_run").mkdir(parents=True)
    (folder / "out" / "_run" / "job.json").touch()
    with pytest.raises(JobError, match="an earlier version of run-batch"):
        command(config)
