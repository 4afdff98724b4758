"""Columns beside texts hold what vLLM gives for the same prompts, of every sequence."""

from pathlib import Path
from typing import Any

import engines
import pytest

import jobs

pytestmark = pytest.mark.engine

SAMPLING = {"temperature": 0.8, "n": 2, "seed": 3, "logprobs": 2, "prompt_logprobs": 1, "stop": ["e"], "max_tokens": 5}
EXTRA = ["token_ids", "stop_reason", "prompt_logprobs", "timing"]


def candidates(position: Any) -> list[tuple[Any, ...]]:
    return [(token, entry.decoded_token, pytest.approx(entry.logprob, abs=1e-4)) for token, entry in position.items()]


def as_tuples(position: Any) -> list[tuple[Any, ...]]:
    return [(c["token_id"], c["token"], c["logprob"]) for c in position]


def assert_same(row: dict[str, Any], output: Any) -> None:
    sequences = output.outputs
    assert row["texts"] == [s.text for s in sequences] and row["text"] == sequences[0].text
    assert row["finish_reasons"] == [s.finish_reason for s in sequences]
    assert row["token_ids"] == [list(s.token_ids) for s in sequences]
    assert row["stop_reason"] == [None if s.stop_reason is None else str(s.stop_reason) for s in sequences]
    assert row["generated_tokens"] == sum(len(s.token_ids) for s in sequences)
    for found, sequence in zip(row["logprobs"], sequences, strict=True):
        assert list(map(sorted, map(as_tuples, found))) == [sorted(candidates(p), key=str) for p in sequence.logprobs]
    found, expected = row["prompt_logprobs"], output.prompt_logprobs
    assert found[0] is None and expected[0] is None
    assert list(map(as_tuples, found[1:])) == list(map(candidates, expected[1:]))
    assert [position[0]["token_id"] for position in found[1:]] == output.prompt_token_ids[1:]


def test_columns_beside_texts_hold_what_vllm_gives(tmp_path: Path) -> None:
    from vllm import LLM, SamplingParams

    prompts = [f"{question} {i}" for i, question in enumerate(jobs.QUESTIONS * 2)]
    tables: dict[str, Any] = {
        "input": {"image_column": "", "id_column": None},
        "prompt": {"template": "USER: {prompt} ASSISTANT:"},
        "sampling": SAMPLING,
        "output": {"extra": EXTRA, "rows_per_shard": 4},
    }
    rows = jobs.succeed(jobs.write_job(tmp_path, {"prompt": prompts}, **tables)).to_pylist()
    from run_batch.jobs.mapping.row_sampling import row_seed

    llm = LLM(str(jobs.TABLES["model"]["path"]), disable_log_stats=True, **engines.ENGINE)
    params = [SamplingParams(**{**SAMPLING, "seed": row_seed(3, row["row_id"])}) for row in rows]
    outputs = llm.generate([f"USER: {prompt} ASSISTANT:" for prompt in prompts], params, use_tqdm=False)
    llm.llm_engine.engine_core.shutdown()
    for row, output in zip(rows, outputs, strict=True):
        assert_same(row, output)
        assert all(seconds >= 0 for seconds in row["timing"].values()) and sum(row["timing"].values()) > 0
    reasons = [reason for row in rows for reason in row["stop_reason"]]
    assert "e" in reasons and None in reasons, "the settings hardly matter here"
