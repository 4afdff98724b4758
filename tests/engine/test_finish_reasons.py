"""How a generation ends: a text with its finish_reason, or a failed row."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import jobs
from run_batch.jobs.engine.request_results import result_of
from run_batch.jobs.job.rows import Generation, RowFailure

pytestmark = pytest.mark.engine

ENDLESS_GRAMMAR = {"structured_outputs": {"grammar": "root ::= root"}}
REPETITION = {
    "repetition_detection": {"max_pattern_size": 1, "min_pattern_size": 1, "min_count": 3},
    "allowed_token_ids": [10],
}


def finished(*reasons: str | None) -> Any:
    """What vLLM gives of a finished request, one sequence for each reason."""
    sequences = [
        SimpleNamespace(index=i, text="", token_ids=[5], finish_reason=reason, logprobs=None)
        for i, reason in enumerate(reasons)
    ]
    return SimpleNamespace(request_id="3", prompt_token_ids=[1], outputs=sequences)


def test_a_generation_that_vllm_gives_up_is_a_failed_row(tmp_path: Path) -> None:
    columns = jobs.rows(6)
    columns["own"] = [None] * 6
    columns["own"][2] = json.dumps(ENDLESS_GRAMMAR)
    columns["own"][4] = json.dumps(REPETITION)
    job = jobs.write_job(
        tmp_path, columns, input={"sampling_column": "own"}, errors={"max_fraction": 0.2}, sampling={"max_tokens": 20}
    )
    rows = jobs.succeed(job).to_pylist()
    assert rows[2]["error"].startswith("generation_failed: ") and "finish_reason error" in rows[2]["error"]
    assert rows[2]["text"] is None and rows[2]["finish_reason"] is None
    assert rows[4]["finish_reason"] == "repetition" and rows[4]["generated_tokens"] == 3
    assert [row["error"] for i, row in enumerate(rows) if i != 2] == [None] * 5
    assert all(row["text"] for i, row in enumerate(rows) if i != 2)


def test_only_the_regular_ends_of_vllm_make_a_text() -> None:
    from vllm.v1.engine import FINISH_REASON_STRINGS

    for reason in [*FINISH_REASON_STRINGS, "an end of a later version", None]:
        result = result_of(finished(reason), ())
        if reason in ("stop", "length", "repetition"):
            assert isinstance(result, Generation) and result.finish_reason == reason
        else:
            assert isinstance(result, RowFailure) and result.kind == "generation_failed", reason
            assert str(reason) in result.error


def test_a_row_fails_with_any_of_its_sequences() -> None:
    assert isinstance(result_of(finished("stop", "length"), ()), Generation)
    assert isinstance(result_of(finished("stop", "abort"), ()), RowFailure)
