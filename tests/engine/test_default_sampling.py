"""A job without sampling settings generates as vLLM does by default: generation config, eos tokens, the context."""

import json
import shutil
from pathlib import Path

import engines
import pyarrow.parquet as pq
import pytest

import jobs

pytestmark = pytest.mark.engine

TEXT_ONLY = {"input": {"image_column": ""}, "prompt": {"template": "USER: {prompt} ASSISTANT:"}}
PROMPTS = [f"{question} {'x' * i}" for i in range(3) for question in jobs.QUESTIONS]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    shutil.copytree(jobs.ROOT / "configs" / "demo" / "model", folder)
    # `e` ends a text, besides the tokenizer's own token.
    tokens = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    content = {"temperature": 0.0, "max_new_tokens": 4, "eos_token_id": [2, tokens["e"]]}
    (folder / "generation_config.json").write_text(json.dumps(content))
    return folder


def write_job(folder: Path, model: Path, **tables: dict[str, object]) -> Path:
    columns = {"uid": [f"u{i}" for i in range(len(PROMPTS))], "prompt": PROMPTS}
    tables = {**TEXT_ONLY, "model": {"path": str(model)}, **tables}
    sampling = {"temperature": None, "max_tokens": None, **tables.pop("sampling", {})}
    return jobs.write_job(folder, columns, sampling=sampling, **tables)


def test_a_job_without_sampling_settings_generates_what_vllm_generates_by_default(tmp_path: Path, model: Path) -> None:
    from vllm import LLM

    job = write_job(tmp_path / "job", model)
    found = jobs.succeed(job).to_pylist()
    llm = LLM(str(model), disable_log_stats=True, **engines.ENGINE)
    prompts = [f"USER: {prompt} ASSISTANT:" for prompt in PROMPTS]
    outputs = [output.outputs[0] for output in llm.generate(prompts, llm.get_default_sampling_params(), use_tqdm=False)]
    llm.llm_engine.engine_core.shutdown()
    assert [(row["text"], row["finish_reason"], row["generated_tokens"]) for row in found] == [
        (output.text, output.finish_reason, len(output.token_ids)) for output in outputs
    ]
    assert {row["finish_reason"] for row in found} == {"stop", "length"}, "the settings hardly matter here"

    metadata = pq.read_metadata(jobs.shards(job)[0]).metadata
    assert json.loads(metadata[b"run_batch.sampling"]) == {"max_tokens": 4, "temperature": 0.0}
    truncated = sum(row["finish_reason"] == "length" for row in found)
    assert f"ended by length: {truncated} rows" in jobs.run(job, command="status").stdout
    assert json.loads(jobs.run(job, "--json", command="status").stdout)["truncated"] == truncated
    assert json.loads((job.parent / "out/.run_batch/summary.json").read_text())["truncated"] == truncated


def test_without_max_tokens_a_row_may_fill_the_context(tmp_path: Path, model: Path) -> None:
    (model / "generation_config.json").unlink()
    job = write_job(tmp_path / "job", model, engine={"max_model_len": 64}, sampling={"ignore_eos": True, "seed": 1})
    finished = jobs.run(job)
    assert f"{len(PROMPTS)} rows ended by length" in finished.stdout, finished.stderr
    for row in jobs.results(job).to_pylist():
        assert row["error"] is None and row["prompt_tokens"] + row["generated_tokens"] == 64


def test_check_shows_the_settings_and_where_each_comes_from(tmp_path: Path, model: Path) -> None:
    tables = {"engine": {"override_generation_config": {"top_k": 3}}, "sampling": {"top_p": 0.5}}
    shown = jobs.run(write_job(tmp_path / "a", model, **tables), command="check").stdout
    assert "sampling.temperature = 0.0 (the model's generation_config.json)" in shown
    assert "sampling.top_k = 3 (engine.override_generation_config)" in shown
    assert "sampling.top_p = 0.5 (job.toml)" in shown and "sampling.max_tokens = 4 (the model's" in shown
    assert "tokens that end a text: 2, " in shown
    (model / "generation_config.json").unlink()
    shown = jobs.run(write_job(tmp_path / "b", model), command="check").stdout
    assert "sampling.max_tokens = what the context leaves to the row" in shown and "sampling.temperature" not in shown


def test_other_defaults_are_another_job(tmp_path: Path, model: Path) -> None:
    job = write_job(tmp_path / "job", model, engine={"generation_config": "defaults"})
    (job.parent / "defaults").mkdir()
    for top_k, code in ((4, 0), (5, 2)):
        content = {"top_k": top_k, "max_new_tokens": 2}
        (job.parent / "defaults/generation_config.json").write_text(json.dumps(content))
        finished = jobs.run(job)
        assert finished.returncode == code, finished.stderr
    assert "sampling.top_k: 4 -> 5" in finished.stderr
