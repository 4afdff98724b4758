"""Jobs with prompt.chat: which messages a row becomes, and the errors of rows whose messages do not fit the job."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from chat_jobs import ChatJob, ids_of, image

import jobs
from run_batch.jobs.job.errors import JobError
from run_batch.jobs.job.prompt_column import PromptColumn


def test_one_question_is_asked_of_every_image(tmp_path: Path, chat_checkpoint: Callable[[str], Path]) -> None:
    images = [image(), None]
    job = ChatJob(tmp_path, chat_checkpoint("parts"), {"image": images}, prompt={"template": "Describe this image."})
    assert job.rows() == [
        "USER: <image>\nDescribe this image.</s>ASSISTANT:",
        "USER: Describe this image.</s>ASSISTANT:",
    ]


def test_the_template_is_the_users_message(tmp_path: Path, chat_checkpoint: Callable[[str], Path]) -> None:
    columns = {"image": [image()], "prompt": ["a <image></s>"], "name": ["Ann"]}
    template = "{name} asks: {prompt}"
    prompt = {"template": template, "system": "Be brief.", "prefill": "{name}, it is"}
    job = ChatJob(tmp_path, chat_checkpoint("parts"), columns, prompt=prompt)
    (shown,) = job.rows()
    assert shown == "SYSTEM: Be brief.</s>USER: <image>\nAnn asks: a <image></s></s>ASSISTANT: Ann, it is"


def test_the_models_placeholder_in_the_template_is_the_place_of_the_image(
    tmp_path: Path, chat_checkpoint: Callable[[str], Path]
) -> None:
    for kind, expected in {
        "parts": "USER: Look:<image>\nwell?</s>ASSISTANT:",
        "text": "user: Look: <image> well?</s>assistant:",
    }.items():
        job = ChatJob(
            tmp_path / kind, chat_checkpoint(kind), {"image": [image()]}, prompt={"template": "Look: <image> well?"}
        )
        assert job.rows() == [expected]


def test_a_marker_in_the_data_is_the_place_of_the_next_image(
    tmp_path: Path, chat_checkpoint: Callable[[str], Path]
) -> None:
    texts = ["[img] or [img]?", "no marker", "[img]?"]
    columns = {"image": [[image(0), image(1)], [image(0)], [image(0), image(1)]], "prompt": texts}
    job = ChatJob(tmp_path / "a", chat_checkpoint("text"), columns, prompt={"image_marker": "[img]"})
    shown = job.rows()
    assert shown[:2] == [
        "user: <image> or <image>?</s>assistant:",
        "user: <image>\nno marker</s>assistant:",
    ]
    assert shown[2] == "placeholders: the messages have 1 places for images, the row has 2"

    # Without a chat template, the marker is the only place.
    template = {"template": "Q: {prompt}", "chat": False, "image_marker": "[img]"}
    shown = ChatJob(tmp_path / "b", chat_checkpoint("text"), columns, prompt=template).rows()
    assert shown[0] == "Q: <image> or <image>?"
    assert shown[1] == "placeholders: the prompt has 0 places for images, the row has 1"
    assert shown[2] == "placeholders: the prompt has 1 places for images, the row has 2"


def test_examples_stand_before_the_rows_own_messages(tmp_path: Path, chat_checkpoint: Callable[[str], Path]) -> None:
    (tmp_path / "shots").mkdir()
    (tmp_path / "shots" / "one.png").write_bytes(image(1))
    examples = [{"image": "shots/one.png", "text": "This?", "answer": "A cat."}, {"text": "2 + 2?", "answer": "4"}]
    columns = {"image": [image(0)], "prompt": ["And this?"]}
    prompt = {"system": "Be brief.", "examples": examples}
    job = ChatJob(tmp_path, chat_checkpoint("parts"), columns, prompt=prompt)
    assert job.rows() == [
        "SYSTEM: Be brief.</s>USER: <image>\nThis?</s>ASSISTANT: A cat.</s>USER: 2 + 2?</s>ASSISTANT: 4</s>"
        "USER: <image>\nAnd this?</s>ASSISTANT:"
    ]
    (tmp_path / "shots" / "one.png").write_bytes(b"x")
    with pytest.raises(JobError, match=r"prompt\.examples: "):
        job.rows()


def conversations() -> list[list[dict[str, Any]]]:
    ask = {"type": "text", "text": "What?"}
    return [
        [{"role": "user", "content": [{"type": "image"}, ask]}],
        [{"role": "system", "content": [{"type": "text", "text": "Hm."}]}, {"role": "user", "content": [ask]}],
        [{"role": "user", "content": [ask]}, {"role": "assistant", "content": [{"type": "text", "text": "A"}]}],
        [{"role": "user", "content": [ask, {"type": "image"}, {"type": "image"}]}],
    ]


EXPECTED = [
    "USER: <image>\nWhat?</s>ASSISTANT:",
    "SYSTEM: Hm.</s>USER: <image>\nWhat?</s>ASSISTANT:",
    "USER: <image>\nWhat?</s>ASSISTANT: A",
    "placeholders: the messages have 2 places for images, the row has 1",
]


def test_conversations_are_the_same_as_structs_and_as_json_text(
    tmp_path: Path, chat_checkpoint: Callable[[str], Path]
) -> None:
    images = [image()] * 4
    structs = ChatJob(tmp_path / "structs", chat_checkpoint("parts"), {"image": images, "prompt": conversations()})
    assert structs.rows(PromptColumn.CONVERSATIONS) == EXPECTED
    texts = [json.dumps(value) for value in conversations()]
    text = ChatJob(
        tmp_path / "json", chat_checkpoint("parts"), {"image": [*images, image()], "prompt": [*texts, "What?"]}
    )
    shown = text.rows(PromptColumn.JSON_CONVERSATIONS)
    assert shown[:4] == EXPECTED
    assert shown[4].startswith("prompt_messages: the messages are not JSON")


def test_a_conversation_in_a_column_of_texts_is_an_error_of_its_row(
    tmp_path: Path, chat_checkpoint: Callable[[str], Path]
) -> None:
    texts = ["What?", json.dumps(conversations()[1]), "[{'role': 'system', 'content': 'Obey.'}]", "[1, 2]", None]
    job = ChatJob(tmp_path, chat_checkpoint("parts"), {"image": [image()] * 5, "prompt": texts})
    shown = job.rows()
    assert shown[0] == "USER: <image>\nWhat?</s>ASSISTANT:"
    assert all(error.startswith("prompt_messages: the row reads like a conversation") for error in shown[1:3])
    assert shown[3] == "USER: <image>\n[1, 2]</s>ASSISTANT:"
    assert shown[4] == "prompt_null: column prompt is null"


def test_messages_bring_their_own_images(tmp_path: Path, chat_checkpoint: Callable[[str], Path]) -> None:
    (tmp_path / "a.png").write_bytes(image(1))
    ask = {"type": "text", "text": "Same?"}
    rows = [
        [{"type": "image", "image": "a.png"}, {"type": "image"}, ask],
        [{"type": "image", "path": "a.png"}, ask],
        [{"type": "image", "image": "../a.png"}, ask],
        [{"type": "image", "index": 1}, {"type": "image", "index": 0}, ask],
    ]
    columns = {"image": [[image(2)], [], [], [image(2), image(3)]], "prompt": []}
    columns["prompt"] = [json.dumps([{"role": "user", "content": content}]) for content in rows]
    job = ChatJob(tmp_path, chat_checkpoint("parts"), columns)
    shown = job.rows(PromptColumn.JSON_CONVERSATIONS)
    assert shown[0] == shown[3] == "USER: <image>\n<image>\nSame?</s>ASSISTANT:"
    assert shown[1] == "USER: <image>\nSame?</s>ASSISTANT:"
    assert shown[2].startswith("path_not_allowed: ")


def test_parts_that_name_images_which_are_not_there_say_so(
    tmp_path: Path, chat_checkpoint: Callable[[str], Path]
) -> None:
    rows = [[{"type": "image", "index": 5}], [{"type": "image", "index": 0}] * 2, [{"type": "image", "index": 1}]]
    texts = [json.dumps([{"role": "user", "content": [*content, {"text": "?"}]}]) for content in rows]
    columns = {"image": [[image(2)], [image(2)], [image(2), image(3)]], "prompt": texts}
    shown = ChatJob(tmp_path, chat_checkpoint("parts"), columns).rows(PromptColumn.JSON_CONVERSATIONS)
    assert shown == [
        "placeholders: a part has index 5, counted from 0; the row has 1 images",
        "USER: <image>\n<image>\n?</s>ASSISTANT:",
        "placeholders: the messages have 1 places for images, the row has 2",
    ]


def test_contradictions_between_a_row_and_its_job_are_errors_of_the_row(
    tmp_path: Path, chat_checkpoint: Callable[[str], Path]
) -> None:
    columns = {"image": [image()] * 4, "prompt": [json.dumps(value) for value in conversations()]}
    job = ChatJob(tmp_path, chat_checkpoint("parts"), columns, prompt={"system": "Be brief.", "prefill": "It is"})
    shown = job.rows(PromptColumn.JSON_CONVERSATIONS)
    assert shown[0] == "SYSTEM: Be brief.</s>USER: <image>\nWhat?</s>ASSISTANT: It is"
    assert "prompt.system is set" in shown[1]
    assert "prompt.prefill is set" in shown[2]


def test_special_tokens_do_not_arise_where_texts_meet(tmp_path: Path, chat_checkpoint: Callable[[str], Path]) -> None:
    apart = [{"type": "text", "text": "is it </"}, {"type": "text", "text": "s> even?"}]
    columns = {
        "image": [None],
        "prompt": [json.dumps([{"role": "user", "content": apart}])],
        "a": ["</"],
        "b": ["s>"],
        "tag": ["s"],
    }
    job = ChatJob(tmp_path / "parts", chat_checkpoint("parts"), columns)
    assert ids_of(job, PromptColumn.JSON_CONVERSATIONS).count(2) == 1
    for number, template in enumerate(("{a}{b}", "<{tag}>no</{tag}>", "</{b}", "{a}s>")):
        job = ChatJob(tmp_path / str(number), chat_checkpoint("parts"), columns, prompt={"template": template})
        assert ids_of(job).count(2) == 1, template
        assert ids_of(job).count(1) == 0, template


@pytest.mark.parametrize(
    ("prompt", "reason"),
    [
        ({"chat_template": "llava"}, r"prompt\.chat_template = 'llava': no such file, nor a template of that name"),
        ({"chat_template": "Hello, you.\n"}, r"no such file"),
        ({"chat_template": "{% for m in talk %}{{ m.content }}{% endfor %}"}, r"prompt\.template: .* does not write"),
        ({"chat_template": "{{ messages[-1].content }}", "system": "Be brief."}, r"prompt\.system: .* does not write"),
        (
            {"chat_template": "{{ messages[-1].content }}", "examples": [{"text": "a", "answer": "b"}]},
            r"prompt\.examples: .* does not write",
        ),
        (
            {
                "chat_template": "{% for m in messages %}{{ m.content.split('</s>')[-1] }}{% endfor %}",
                "prefill": "<s></s>It is",
            },
            r"a plain message cannot be rendered: .*",
        ),
        (
            {"chat_template": "{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}", "prefill": "A"},
            r"a plain message cannot be rendered: .*",
        ),
    ],
    ids=str,
)
def test_a_template_that_drops_what_the_job_says_is_refused(
    tmp_path: Path, chat_checkpoint: Callable[[str], Path], prompt: dict[str, Any], reason: str
) -> None:
    job = ChatJob(tmp_path, chat_checkpoint("text"), {"image": [None], "prompt": ["hi"]}, prompt=prompt)
    with pytest.raises(JobError, match=reason):
        job.rows()


def test_half_of_a_surrogate_pair_is_an_error_of_its_row(
    tmp_path: Path, chat_checkpoint: Callable[[str], Path]
) -> None:
    texts = [json.dumps([{"role": "user", "content": text}]) for text in ("\ud83d hi", "\U0001f600 hi")]
    job = ChatJob(tmp_path, chat_checkpoint("text"), {"image": [None, None], "prompt": texts})
    broken, whole = job.rows(PromptColumn.JSON_CONVERSATIONS)
    assert broken.startswith("text_encoding: ")
    assert whole.startswith("user: ")


def test_a_developer_among_system_messages_is_not_lost(tmp_path: Path, chat_checkpoint: Callable[[str], Path]) -> None:
    turns = [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": "What?"}]
    texts = [json.dumps(turns), json.dumps([{"role": "system", "content": "Hm."}, *turns])]
    columns = {"image": [None, None], "prompt": texts}
    alone, merged = ChatJob(tmp_path / "a", chat_checkpoint("parts"), columns).rows(PromptColumn.JSON_CONVERSATIONS)
    assert alone == "SYSTEM: Be brief.</s>USER: What?</s>ASSISTANT:"
    assert merged.startswith("prompt_messages: the chat template has no developer messages")
    job = ChatJob(tmp_path / "b", chat_checkpoint("parts"), columns, prompt={"system": "Hm."})
    assert all("prompt.system is set" in error for error in job.rows(PromptColumn.JSON_CONVERSATIONS))


@pytest.mark.engine
def test_a_chat_job_takes_text_messages_and_json(tmp_path: Path, chat_checkpoint: Callable[[str], Path]) -> None:
    columns = jobs.rows(6)
    prompt = {"template": None, "chat": True, "system": "Be brief."}
    model = {"path": str(chat_checkpoint("parts"))}
    text = jobs.succeed(jobs.write_job(tmp_path / "text", columns, prompt=prompt, model=model))
    columns["prompt"] = [json.dumps([{"role": "user", "content": prompt}]) for prompt in columns["prompt"]]
    job = jobs.write_job(tmp_path / "json", columns, prompt=prompt, model=model)
    assert "conversations as JSON text" in jobs.run(job, command="check").stdout
    messages = jobs.succeed(job)
    assert messages["error"].null_count == 6
    assert messages["text"].to_pylist() == text["text"].to_pylist()
    assert messages["prompt_tokens"].to_pylist() == text["prompt_tokens"].to_pylist()
