"""What the prompt column of a chat job holds is decided once, by the column."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from run_batch.jobs.job.chat_settings import chat_content, read_chat_settings, read_example_images
from run_batch.jobs.job.columns import check_columns, needed_columns
from run_batch.jobs.job.config import JobConfig, parse_config
from run_batch.jobs.job.errors import JobError
from run_batch.jobs.job.job_identity import job_identity
from run_batch.jobs.job.open_input import open_source
from run_batch.jobs.job.prompt_column import PromptColumn, find_prompt_column, parse_json_messages, reads_like_messages

KEYS = st.sampled_from(["role", "content", "from", "value", "type", "text", "messages"])


def nested(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(inner, max_size=2) | st.dictionaries(KEYS, inner, max_size=3)


MESSAGES = [{"role": "user", "content": "hi"}]
TEXT, STRUCTS, JSON = PromptColumn.TEXTS, PromptColumn.CONVERSATIONS, PromptColumn.JSON_CONVERSATIONS


def job(folder: Path, prompt: dict[str, Any], **tables: dict[str, Any]) -> JobConfig:
    given = {
        "input": {"path": "rows.parquet", "image_column": "", **tables.pop("input", {})},
        "prompt": {"chat": True, **prompt},
        "model": {"path": "model"},
        "output": {"path": "out"},
    }
    return parse_config({**given, **tables}, folder)


def holds(folder: Path, column: pa.Array | list[Any], **prompt: Any) -> PromptColumn:
    pq.write_table(pa.table({"prompt": column}), folder / "rows.parquet")
    config = job(folder, prompt)
    return find_prompt_column(config, open_source(config))


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (["hi", None, "there"], TEXT),
        ([None, None], TEXT),
        ([1, 2], TEXT),
        (['{"a": 1}', "[1, 2]", '"role"'], TEXT),
        ([MESSAGES, None], STRUCTS),
        ([[{"from": "human", "value": "hi"}]], STRUCTS),
        ([[{"type": "text", "text": "hi"}]], STRUCTS),
        ([[{"role": "user", "content": [{"type": "text", "text": "hi"}]}]], STRUCTS),
        ([None, json.dumps(MESSAGES), json.dumps(MESSAGES, indent=2)], JSON),
        ([json.dumps({"custom_id": "a", "body": {"messages": MESSAGES}})], JSON),
        ([json.dumps({"prompt": MESSAGES, "completion": MESSAGES})], JSON),
        ([json.dumps({"conversation": MESSAGES})], JSON),
        ([json.dumps(json.dumps(MESSAGES))], JSON),
        (["\ufeff" + json.dumps(MESSAGES)], JSON),
        (["array([{'content': 'hi', 'role': 'user'}])", "({'role': 'user', 'content': 'hi'},)"], JSON),
        (["[{'weight': 1, 'role': 'user', 'content': 'hi'}]"], JSON),
        (['[["user", "hi"], ["assistant", "ho"]]', '[{"image": "a.png"}, {"text": "hi"}]', "[]"], JSON),
        (['{"type": "Feature", "geometry": 1}', '{"value": 1}', '{"from": "a"}', '{"content": "x"}'], TEXT),
        (['{"name": "a"}', "[1]", "[[1, 2]]", '["a"]', '"a"', "(a, b)", '[{"text": "a", "label": 1}]'], TEXT),
        (["[[[1, 2], [3, 4]]]", '[[{"a": 1}, 2]]', "[[null, 1]]"], TEXT),
        ([json.dumps({"messages": MESSAGES})], JSON),
        ([json.dumps([{"from": "human", "value": "hi"}])], JSON),
        ([json.dumps([{"content": "hi", "id": 1, "role": "user"}])], JSON),
        # Rows that are no JSON are their own errors; the column holds conversations all the same.
        (["[{'role': 'user', 'content': 'hi'}]", '[{"role": "user", "con'], JSON),
        # One user who writes a conversation does not make the others' texts conversations, nor the other way round.
        (["hi", json.dumps(MESSAGES), "there"], TEXT),
        ([json.dumps(MESSAGES), "hi", json.dumps(MESSAGES)], JSON),
        (pa.array([json.dumps(MESSAGES)] * 2).dictionary_encode(), JSON),
        (pa.array([json.dumps(MESSAGES)], pa.large_string()), JSON),
    ],
    ids=str,
)
def test_texts_and_conversations_are_told_apart_by_the_column(
    tmp_path: Path, column: Any, expected: PromptColumn
) -> None:
    assert holds(tmp_path, column) is expected


@pytest.mark.parametrize(
    "column",
    [
        [["one", "two"]],
        [[{"speaker": "user", "text": "hi"}]],
        [{"role": "user", "content": "hi"}],
        pa.array([[[("role", "user")]]], pa.list_(pa.map_(pa.string(), pa.string()))),
    ],
    ids=str,
)
def test_columns_of_neither_are_refused(tmp_path: Path, column: Any) -> None:
    with pytest.raises(JobError, match=r"input\.prompt_column: column prompt is .*; prompt\.chat = true takes text"):
        holds(tmp_path, column)


def test_a_template_of_its_own_makes_texts_of_all_columns(tmp_path: Path) -> None:
    assert holds(tmp_path, [json.dumps(MESSAGES)], template="Is this polite? {prompt}") is TEXT


@given(st.recursive(st.none() | st.integers() | st.sampled_from(["user", "role", "text", ""]), nested, max_leaves=12))
def test_no_json_ends_the_look_for_conversations(value: Any) -> None:
    reads_like_messages(json.dumps(value))


def test_text_that_is_not_utf8_says_nothing_of_the_other_rows(tmp_path: Path) -> None:
    texts = [json.dumps(MESSAGES).encode(), b"\xff\xfe", json.dumps(MESSAGES).encode()]
    column = pa.Array.from_buffers(pa.string(), 3, pa.array(texts).buffers())
    assert holds(tmp_path, column) is JSON


@pytest.mark.parametrize("template", ["{prompt}\n", " {prompt}"])
def test_white_space_around_the_column_is_no_template_of_its_own(tmp_path: Path, template: str) -> None:
    assert holds(tmp_path, [json.dumps(MESSAGES)], template=template) is JSON


def test_only_the_first_rows_are_looked_at(tmp_path: Path) -> None:
    assert holds(tmp_path, ["hi"] * 256 + [json.dumps(MESSAGES)] * 1000) is TEXT


def test_what_the_column_holds_belongs_to_the_job(tmp_path: Path) -> None:
    pq.write_table(pa.table({"prompt": ["hi"]}), tmp_path / "rows.parquet")
    config = job(tmp_path, {})
    source = open_source(config)
    identities = [job_identity(config, source, kind) for kind in PromptColumn]
    assert len({json.dumps(identity) for identity in identities}) == 3


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("hi", "not JSON"),
        ("[" * 100_000, "nested too deeply"),
        ('{"messages": [], "temperature": 1}', "an object of messages, temperature"),
        ("{}", "an object of nothing"),
        ("3", "found a int"),
    ],
    ids=lambda text: text[:20],
)
def test_json_that_is_no_conversation_is_named(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_json_messages(text)
    assert not reads_like_messages("[" * 100_000)


def test_a_prompt_column_that_no_template_reads_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"prompt": ["hi"], "image": [b"x"]}), tmp_path / "rows.parquet")
    config = job(tmp_path, {"template": "Describe it."}, input={"prompt_column": "prompt"})
    with pytest.raises(JobError, match=r'input\.prompt_column = "prompt" is not read'):
        check_columns(config, open_source(config))
    config = job(tmp_path, {"template": "Describe it.", "image_marker": "<i>"}, input={"image_column": "image"})
    with pytest.raises(JobError, match=r"prompt\.image_marker stands for images in columns' texts"):
        check_columns(config, open_source(config))
    config = job(tmp_path, {"template": "Describe it."}, input={"image_column": "image"})
    check_columns(config, open_source(config))
    assert needed_columns(config, open_source(config).schema) == ["image"]
    config = job(tmp_path, {"template": "Describe it."})
    with pytest.raises(JobError, match="all rows have the same prompt"):
        check_columns(config, open_source(config))


def test_prefill_reads_its_columns(tmp_path: Path) -> None:
    schema = pa.schema({"prompt": pa.string(), "begin": pa.string(), "messages": pa.list_(pa.string())})
    assert needed_columns(job(tmp_path, {"prefill": "{begin}"}), schema) == ["prompt", "begin"]
    with pytest.raises(JobError, match=r"prompt\.prefill: column messages is list"):
        needed_columns(job(tmp_path, {"prefill": "{messages}"}), schema)
    with pytest.raises(JobError, match=r"prompt\.prefill names column 'begn'.*begin"):
        needed_columns(job(tmp_path, {"prefill": "{begn}"}), schema)


def test_the_files_that_a_chat_names_are_read_from_beside_its_job(tmp_path: Path) -> None:
    (tmp_path / "chat.jinja").write_text("{{ messages }}")
    (tmp_path / "tools.json").write_text('[{"type": "function"}]')
    (tmp_path / "one.png").write_bytes(b"one")
    examples = [{"image": ["one.png", "one.png"], "text": "Same?", "answer": "Yes."}]
    config = job(tmp_path, {"chat_template": "chat.jinja", "tools": "tools.json", "examples": examples})
    settings = read_chat_settings(config)
    assert (settings.template, settings.tools) == ("{{ messages }}", [{"type": "function"}])
    assert read_example_images(config) == [[b"one", b"one"]]
    assert read_chat_settings(job(tmp_path, {"chat_template": "{{ x }}"})).template == "{{ x }}"
    assert read_chat_settings(job(tmp_path, {"chat_template": "tool_use"})).template == "tool_use"

    before = chat_content(config)
    for name in ("chat.jinja", "tools.json", "one.png"):
        (tmp_path / name).write_text('[{"type": "other"}]')
        assert chat_content(config) != before, "other content is another job"
        before = chat_content(config)


@pytest.mark.parametrize(
    ("prompt", "reason"),
    [
        ({"chat_template": "no/such.jinja"}, r"prompt\.chat_template: no/such\.jinja cannot be read: No such file"),
        ({"tools": "no.json"}, r"prompt\.tools: no\.json cannot be read"),
        ({"tools": "bad.json"}, r"prompt\.tools bad\.json: not JSON"),
        ({"tools": "object.json"}, r"prompt\.tools object\.json: expected a list of JSON objects"),
        ({"examples": [{"image": "no.png", "text": "a", "answer": "b"}]}, r"prompt\.examples: no\.png cannot be read"),
        ({"chat_template": "latin.jinja"}, r"latin\.jinja: the file is not UTF-8"),
    ],
    ids=str,
)
def test_files_that_cannot_be_read_are_named_with_their_key(tmp_path: Path, prompt: Any, reason: str) -> None:
    (tmp_path / "bad.json").write_text("{")
    (tmp_path / "object.json").write_text("{}")
    (tmp_path / "latin.jinja").write_bytes(b"\xe4")
    with pytest.raises(JobError, match=reason):
        chat_content(job(tmp_path, prompt))


@pytest.mark.parametrize(
    "prompt",
    [
        {"tools": "a\0b"},
        {"tools": 3},
        {"tools": ["a"]},
        {"examples": [{"text": "a"}]},
        {"examples": [{"text": "a", "answer": "b", "picture": "c"}]},
        {"examples": [{"text": "a", "answer": "b", "image": 3}]},
        {"examples": "a.png"},
        {"image_marker": " "},
        {"chat_template_kwargs": "a"},
    ],
    ids=str,
)
def test_other_values_are_refused_with_the_key_and_what_it_takes(tmp_path: Path, prompt: Any) -> None:
    (name,) = prompt
    with pytest.raises(JobError, match=rf"prompt\.{name} = .*: expected "):
        job(tmp_path, prompt)
