"""LoRA adapters, before an engine starts: which keys name them, what their files are, and what they make of a job."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from huggingface_hub import constants
from job_configs import job, make_inputs
from safetensors.torch import save_file

from run_batch.jobs.job.columns import check_columns
from run_batch.jobs.job.errors import JobError
from run_batch.jobs.job.job_identity import changes, job_identity
from run_batch.jobs.job.open_input import open_source
from run_batch.jobs.mapping.row_adapter import row_adapter
from run_batch.model.checkpoint.adapters import AdapterError, adapter_settings, check_slots, read_adapter
from run_batch.model.declaration import RowError

RANKS = (1, 8, 16, 32)
CONFIG: dict[str, Any] = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj"]}


def save(folder: Path, weights: str = "adapter_model.safetensors", **config: Any) -> Path:
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps({**CONFIG, **config}))
    save_file({"base_model.model.model.layers.0.q_proj.lora_A.weight": torch.zeros(4, 8)}, folder / weights)
    return folder


@pytest.mark.parametrize(
    ("tables", "says"),
    [
        ({"input": {"lora_column": "adapter"}}, "input.lora_column = 'adapter' needs a table [lora]"),
        ({"lora": {"a": "folder"}}, "[lora] does nothing without input.lora_column"),
        ({"lora": {"a": 5}, "input": {"lora_column": "adapter"}}, "lora.a = 5: expected a folder or Hub id"),
        (
            {"model": {"lora": "x"}, "lora": {"a": "x"}, "input": {"lora_column": "n"}},
            "model.lora is the adapter of all",
        ),
        ({"engine": {"max_lora_rank": 8}}, "engine.max_lora_rank does nothing without model.lora or a table [lora]"),
        (
            {"model": {"lora": "x"}, "engine": {"enable_lora": False}},
            "engine.enable_lora = false contradicts model.lora",
        ),
        ({"model": {"lora": "x"}, "engine": {"default_mm_loras": {"image": "y"}}}, "set model.lora instead"),
        ({"model": {"lora": "x"}, "engine": {"worker_extension_cls": "y"}}, "worker_extension_cls excludes LoRA"),
    ],
)
def test_keys_of_adapters_that_do_nothing_are_refused(tmp_path: Path, tables: dict[str, Any], says: str) -> None:
    with pytest.raises(JobError) as refused:
        job(tmp_path, **tables)
    assert says in str(refused.value)


def broken(folder: Path, kind: str) -> Path:
    if kind == "folder":
        return folder
    if kind == "pickle":
        save(folder)
        return (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin").parent
    if kind == "weights":
        save(folder, "other.safetensors")
    elif kind == "damaged weights":
        (save(folder) / "adapter_model.safetensors").write_bytes(b"\xff" * 40)
    elif kind == "other weights":
        save_file({"weight": torch.zeros(2)}, save(folder) / "adapter_model.safetensors")
    elif kind in ("config", "damaged config"):
        (save(folder) / "adapter_config.json").write_text("{")
        if kind == "config":
            (folder / "adapter_config.json").unlink()
    else:
        save(
            folder, **{"method": {"peft_type": "IA3"}, "rank": {"r": "four"}, "ranks": {"rank_pattern": {"q": 0}}}[kind]
        )
    return folder


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("folder", "no such folder"),
        ("config", "no adapter_config.json"),
        ("damaged config", "adapter_config.json cannot be read"),
        ("weights", "no adapter_model.safetensors"),
        ("pickle", "adapter_model.bin is a pickle, which can run code"),
        ("damaged weights", "cannot be read as safetensors"),
        ("other weights", "holds no weights of a LoRA adapter"),
        ("method", "(peft_type 'IA3')"),
        ("rank", "r = 'four'"),
        ("ranks", "rank_pattern = {'q': 0}"),
    ],
)
def test_an_adapter_whose_files_are_none_is_refused_by_name(tmp_path: Path, kind: str, says: str) -> None:
    folder = broken(tmp_path / "a", kind)
    with pytest.raises(AdapterError) as refused:
        read_adapter("lora.a", str(folder))
    assert str(refused.value).startswith(f"lora.a {folder}: ") and says in str(refused.value)


def test_the_engine_gets_room_for_the_adapters_that_there_are(tmp_path: Path) -> None:
    small = read_adapter("lora.a", str(save(tmp_path / "a")))
    large = read_adapter("lora.b", str(save(tmp_path / "b", rank_pattern={"k_proj": 17})))
    assert adapter_settings([], RANKS, is_cpu=False) == {}
    assert adapter_settings([small], RANKS, is_cpu=False) == {"enable_lora": True, "max_lora_rank": 8, "max_loras": 1}
    assert adapter_settings([small, large], RANKS, is_cpu=False)["max_lora_rank"] == 32
    assert adapter_settings([small] * 20, RANKS, is_cpu=False)["max_loras"] == 8
    assert adapter_settings([small] * 20, RANKS, is_cpu=True)["max_loras"] == 21
    with pytest.raises(AdapterError, match=r"lora\.b .*: rank 17 is larger than vLLM takes"):
        adapter_settings([small, large], (1, 8), is_cpu=False)


def test_on_a_cpu_a_slot_for_rows_without_an_adapter_stays_empty() -> None:
    check_slots(["lora.a"], {"max_loras": 2}, is_cpu=True)
    check_slots(["lora.a"], {"max_loras": 1}, is_cpu=False)
    with pytest.raises(AdapterError, match=r"engine\.max_loras = 1: on a CPU"):
        check_slots(["lora.a"], {"max_loras": 1}, is_cpu=True)


def test_the_content_of_an_adapter_is_part_of_what_a_job_is(tmp_path: Path) -> None:
    make_inputs(tmp_path)
    save(tmp_path / "a")
    save(tmp_path / "same")
    save(tmp_path / "b", lora_alpha=9)

    def identity(**tables: Any) -> dict[str, Any]:
        config = job(tmp_path, **tables)
        return job_identity(config, open_source(config))

    one = identity(model={"lora": "a"})
    assert one == identity(model={"lora": str(tmp_path / "same")}, engine={"max_loras": 4})
    assert changes(one, identity(model={"lora": "b"})) == ["model.lora (its files): other content"]
    assert changes(identity(), one)[0].startswith("model.lora (its files): ")
    rows = {"lora_column": "prompt"}
    own = identity(lora={"x": "a"}, input=rows)
    assert changes(own, identity(lora={"x": "b"}, input=rows)) == ["lora.x (its files): other content"]


def test_an_adapter_in_the_cache_of_the_hub_is_read_without_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    repository = tmp_path / "cache" / "models--org--style"
    (repository / "refs").mkdir(parents=True)
    (repository / "snapshots").mkdir()

    def cached(commit: str) -> dict[str, Any]:
        save(repository / "snapshots" / commit)
        (repository / "refs" / "main").write_text(commit)
        adapter = read_adapter("model.lora", "org/style")
        assert (adapter.folder, adapter.rank) == (repository / "snapshots" / commit, 4)
        config = job(tmp_path, model={"lora": "org/style"})
        return job_identity(config, open_source(config))

    make_inputs(tmp_path)
    first, second = cached("1" * 40), cached("2" * 40)
    assert changes(first, second) == ["model.lora (its files): other content"], "the commit tells"
    with pytest.raises(AdapterError, match=r"model\.lora org/other: not found on the Hub, or that is not reached"):
        read_adapter("model.lora", "org/other")


def test_a_row_without_a_name_has_no_adapter_and_an_unknown_name_fails_the_row(tmp_path: Path) -> None:
    named = job(tmp_path, lora={"a": "a"}, input={"lora_column": "n"})
    assert (row_adapter({"n": None}, named), row_adapter({"n": "a"}, named)) == (None, "lora.a")
    for name in ("b", "", "A"):
        with pytest.raises(RowError) as failed:
            row_adapter({"n": name}, named)
        assert failed.value.kind == "adapter" and repr(name) in failed.value.message
    assert row_adapter({}, job(tmp_path)) is None
    assert row_adapter({}, job(tmp_path, model={"lora": "x"})) == "model.lora"


def test_the_column_of_adapters_is_one_of_text(tmp_path: Path) -> None:
    make_inputs(tmp_path)
    rows = pq.read_table(tmp_path / "rows.parquet")
    for name, values, is_taken in (("text", ["a", None] * 2, True), ("number", [1, 2] * 2, False)):
        pq.write_table(rows.append_column(name, pa.array(values)), tmp_path / "rows.parquet")
        config = job(tmp_path, lora={"a": "a"}, input={"lora_column": name, "image_column": ""})
        if is_taken:
            check_columns(config, open_source(config))
        else:
            with pytest.raises(JobError, match=r"input\.lora_column: column number is int64; expected text"):
                check_columns(config, open_source(config))
