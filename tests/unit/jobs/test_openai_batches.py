"""Batch files of OpenAI's API as inputs: ids, conversations and sampling settings of rows."""

import json
from pathlib import Path
from typing import Any

import pytest

from run_batch.jobs.init.init_job import init_job
from run_batch.jobs.job.columns import check_columns
from run_batch.jobs.job.config import JobConfig, load_config, parse_config
from run_batch.jobs.job.errors import JobError
from run_batch.jobs.job.open_input import open_source
from run_batch.jobs.job.prepare import prepare
from run_batch.jobs.job.prompt_column import PromptColumn, parse_json_messages
from run_batch.jobs.mapping.row_sampling import row_sampling

TEXT = [{"role": "user", "content": "hi"}]
PARTS = [
    {"role": "user", "content": [{"type": "text", "text": "käse"}, {"type": "image_url", "image_url": {"url": "x"}}]}
]


def request(number: int, **body: Any) -> dict[str, Any]:
    body = {"model": "gpt-4o", "messages": TEXT, **body}
    return {"custom_id": f"r-{number}", "method": "POST", "url": "/v1/chat/completions", "body": body}


def config(folder: Path, requests: list[dict[str, Any]], **tables: dict[str, Any]) -> JobConfig:
    (folder / "rows.jsonl").write_text("".join(json.dumps(one) + "\n" for one in requests))
    (folder / "model").mkdir(exist_ok=True)
    (folder / "model" / "config.json").write_text("{}")
    tables = {"input": {}, "output": {"path": "out"}, "model": {"path": "model"}, **tables}
    tables["input"] = {"path": "rows.jsonl", "format": "openai", **tables["input"]}
    return parse_config(tables, folder)


def test_requests_are_rows_with_their_ids_conversations_and_settings(tmp_path: Path) -> None:
    requests = [
        request(1, max_completion_tokens=7, temperature=0, seed=5, stop=["a", "b"], user="me", stream=False),
        request(2, messages=PARTS, logprobs=True, top_logprobs=3, top_k=2, response_format={"type": "text"}),
        request(3),
    ]
    job = prepare(config(tmp_path, requests))
    assert job.prompt_column is PromptColumn.JSON_CONVERSATIONS and job.config.prompt.chat
    table = job.config.input
    assert (table.id_column, table.prompt_column, table.image_column) == ("custom_id", "messages", "")
    (batch,) = job.source.cursor(["custom_id", "messages", "sampling"], 10).read(0, 3)
    rows = batch.records.to_pylist()
    assert [row["custom_id"] for row in rows] == ["r-1", "r-2", "r-3"]
    assert [parse_json_messages(row["messages"]) for row in rows] == [TEXT, PARTS, TEXT]
    own = [row_sampling({"seed": None, "logprobs": 5}, row["custom_id"], row["sampling"]) for row in rows]
    assert own == [{"max_tokens": 7, "temperature": 0, "seed": 5, "stop": ["a", "b"]}, {"logprobs": 3, "top_k": 2}, {}]


@pytest.mark.parametrize(
    ("second", "said"),
    [
        (request(2, tools=[{"type": "function"}]), r"line 2: body\.tools is not supported; set prompt\.tools"),
        (request(2, response_format={"type": "json_object"}), r"line 2: body\.response_format is not supported"),
        (request(2, stream=True), r"body\.stream is not supported"),
        (request(2, audio={}), r"body\.audio is not supported; take it out"),
        (request(2, max_tokens=3, max_completion_tokens=4), r"max_tokens and body\.max_completion_tokens differ"),
        ({**request(2), "url": "/v1/embeddings"}, r"line 2: POST /v1/embeddings is not supported"),
        ({**request(2), "body": None}, r'line 2: expected \{"custom_id"'),
        ({**request(2), "custom_id": 2}, r'line 2: expected \{"custom_id"'),
        (request(2, messages="hi"), r"line 2: body\.messages is no list"),
        (request(1), r"rows 0 and 1 have the same id 'r-1'"),
    ],
)
def test_a_request_that_a_row_cannot_be_is_named(tmp_path: Path, second: dict[str, Any], said: str) -> None:
    with pytest.raises(JobError, match=said):
        prepare(config(tmp_path, [request(1), second]))


def test_what_job_toml_sets_counts_before_what_the_format_does(tmp_path: Path) -> None:
    job = config(tmp_path, [request(1)], input={"id_column": None}, prompt={"system": "Be short."})
    assert job.input.id_column is None and job.input.sampling_column == "sampling"
    with pytest.raises(JobError, match=r"prompt\.chat = false does not fit"):
        config(tmp_path, [request(1)], prompt={"chat": False})


def test_requests_that_are_not_named_so_are_noticed(tmp_path: Path) -> None:
    job = config(tmp_path, [request(1)])
    unnamed = job.model_copy(update={"input": job.input.model_copy(update={"format": None})})
    with pytest.raises(JobError, match=r'set input\.format = "openai" to run them'):
        check_columns(unnamed, open_source(unnamed))


def test_init_writes_the_format(tmp_path: Path) -> None:
    config(tmp_path, [request(1), request(2, messages=PARTS)])
    init_job(str(tmp_path / "rows.jsonl"), str(tmp_path / "model"), None, None, tmp_path / "job.toml")
    found = load_config(tmp_path / "job.toml")
    assert (found.input.format, found.input.id_column, found.input.sampling_column) == (
        "openai",
        "custom_id",
        "sampling",
    )
    assert prepare(found, writes=False).prompt_column is PromptColumn.JSON_CONVERSATIONS
