"""What makes another job, and which output folders belong to the same one."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from job_configs import job, make_inputs

from run_batch.io.inputs.source import fingerprint
from run_batch.io.outputs.shards import ShardStore
from run_batch.jobs.job.errors import JobError
from run_batch.jobs.job.job_identity import check_same_job, job_identity, record_job
from run_batch.jobs.job.open_input import open_source
from run_batch.jobs.job.plan import Plan
from run_batch.jobs.watch.report import write_report
from run_batch.jobs.watch.status import read_status


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_inputs(tmp_path)


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
        fingerprints.add((fingerprint(open_source(config).files), (folder / "rows.parquet").stat().st_size))
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


@pytest.mark.parametrize("command", [read_status, write_report])
def test_status_and_report_refuse_a_folder_of_an_earlier_layout(folder: Path, command: Any) -> None:
    config = job(folder)
    (folder / "out" / "_run").mkdir(parents=True)
    (folder / "out" / "_run" / "job.json").touch()
    with pytest.raises(JobError, match="an earlier version of run-batch"):
        command(config)
