"""Jobs with `engine.runner = "pooling"` give what vLLM's LLM.embed and LLM.classify give, and resume as others do."""

import io
from pathlib import Path
from typing import Any

import engines
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from adapters import save_adapter, save_merged
from built_in_families import QWEN_IMAGE, save_family
from PIL import Image
from pooling_models import save_text_model
from transformers import Qwen2ForSequenceClassification
from vllm.inputs.engine import tokens_input

import jobs
from run_batch.jobs.job.rows import MappedRow, PooledForm
from run_batch.model.checkpoint.settings import ModelSettings

pytestmark = pytest.mark.engine

TEXT_ONLY = {"image_column": "", "id_column": None}
ROWS = {"prompt": [*(f"text {i}" * (i + 1) for i in range(7)), "x" * 300]}
TOKENS = [[5, 6, 7], [5, 6, 7], [9, 8, 12, 14], [15]]
# vLLM's sampling settings mean nothing here.
NO_SAMPLING = {"temperature": None, "max_tokens": None}


def write_job(folder: Path, model: Path, columns: dict[str, Any], **tables: Any) -> Path:
    return jobs.write_job(
        folder,
        columns,
        model={"path": str(model)},
        sampling=NO_SAMPLING,
        output={"rows_per_shard": 3},
        **{**tables, "engine": {"runner": "pooling", **tables.get("engine", {})}},
    )


def same(found: list[Any], expected: list[Any]) -> bool:
    return bool(np.allclose(np.array(found), np.array(expected), rtol=1e-4, atol=1e-5))


@pytest.mark.parametrize("task", ["embed", pytest.param("classify", marks=pytest.mark.long)])
def test_a_text_model_gives_the_numbers_of_vllm_and_a_long_prompt_fails_alone(tmp_path: Path, task: str) -> None:
    from vllm import LLM

    model = save_text_model(tmp_path / "model", labels=int(task == "classify"))
    job = write_job(
        tmp_path / "job", model, ROWS, input=TEXT_ONLY, prompt={"template": "{prompt}"}, engine={"convert": task}
    )
    rows = jobs.succeed(job, "--set", "errors.max_fraction=0.2")
    llm = LLM(str(model), runner="pooling", convert=task, disable_log_stats=True, **engines.ENGINE)
    outputs = getattr(llm, task)(ROWS["prompt"][:-1], use_tqdm=False)
    llm.llm_engine.engine_core.shutdown()
    column = {"embed": "embedding", "classify": "score"}[task]
    expected = [o.outputs.embedding if task == "embed" else o.outputs.probs[0] for o in outputs]
    assert same(rows[column].to_pylist()[:-1], expected) and np.array(expected).std() > 1e-3
    assert rows[column].to_pylist()[-1] is None and rows["error"].to_pylist()[-1].startswith("prompt_too_long: ")
    assert rows["error"].null_count == 7 and "text" not in rows.column_names
    assert rows["prompt_tokens"].to_pylist()[:-1] == [len(output.prompt_token_ids) for output in outputs]
    types = [pq.read_schema(shard).field(column).type for shard in jobs.shards(job)]
    assert [getattr(kind, "list_size", 1) for kind in types] == [64 if task == "embed" else 1] * 3
    assert {getattr(kind, "value_type", kind) for kind in types} == {pa.float32()}

    # A lost shard is made again, and a row that failed is retried beside others, which stay as they are.
    if task == "embed":
        jobs.shards(job)[2].unlink()
    assert jobs.run(job, "--set", "errors.max_fraction=0.2", *["--retry-failed"] * (task != "embed")).returncode == 0
    again = jobs.results(job)
    assert again.drop_columns(column).equals(rows.drop_columns(column))
    assert again[column].slice(0, 6).equals(rows[column].slice(0, 6))
    assert same(again[column].to_pylist()[:-1], expected) and again[column].null_count == 1


@pytest.mark.long
def test_a_vision_model_gives_embeddings_of_images_and_texts(tmp_path: Path) -> None:
    from vllm import LLM

    save_family(tmp_path / "model", "qwen2_vl")
    columns = {name: values[:4] for name, values in jobs.rows(4).items()}
    engine = {"convert": "embed", "max_model_len": 512}
    job = write_job(
        tmp_path / "job", tmp_path / "model", columns, prompt={"template": QWEN_IMAGE + "{prompt}"}, engine=engine
    )
    found = jobs.succeed(job)["embedding"].to_pylist()
    llm = LLM(str(tmp_path / "model"), runner="pooling", disable_log_stats=True, **{**engines.ENGINE, **engine})
    prompts = [
        {"prompt": QWEN_IMAGE + text, "multi_modal_data": {"image": Image.open(io.BytesIO(image)).convert("RGB")}}
        for text, image in zip(columns["prompt"], columns["image"], strict=True)
    ]
    outputs = llm.embed(prompts, use_tqdm=False)
    llm.llm_engine.engine_core.shutdown()
    assert same(found, [output.outputs.embedding for output in outputs])
    assert not same(found[:1], found[3:]), "the same question about other images has the same embedding"


def test_a_model_of_several_classes_gives_their_probabilities_with_and_without_an_adapter(tmp_path: Path) -> None:
    model = save_text_model(tmp_path / "model", labels=3)
    adapter = save_adapter(tmp_path / "adapter", model)
    merged = save_merged(tmp_path / "merged", model, adapter)
    engine = {**engines.ENGINE, "runner": "pooling", "convert": "classify"}
    rows = [MappedRow(row, tokens_input(TOKENS[row]), {}, adapter="lora.a" if row % 2 else None) for row in range(4)]
    with engines.running_engine(ModelSettings(str(model), engine=engine, adapters={"lora.a": str(adapter)}), {}) as one:
        assert one.pooled == PooledForm("probs", 3)
        assert [one.add(row) for row in rows] == [None] * 4
        found: dict[int, list[float]] = {}
        while one.unfinished:
            found |= {result.row: np.frombuffer(result.values, np.float32).tolist() for result in one.step()}
    expected = [class_probabilities(merged if row % 2 else model, TOKENS[row]) for row in range(4)]
    assert same([found[row] for row in range(4)], expected) and np.allclose(np.sum(expected, axis=1), 1)
    assert not same([found[1]], [class_probabilities(model, TOKENS[1])]), "the adapter hardly matters"


def class_probabilities(model: Path, tokens: list[int]) -> list[float]:
    """What transformers says of a prompt."""
    with torch.no_grad():
        logits = Qwen2ForSequenceClassification.from_pretrained(model)(torch.tensor([tokens])).logits
    return [float(value) for value in logits.softmax(-1)[0]]
