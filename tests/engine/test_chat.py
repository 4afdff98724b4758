"""prompt.chat: the model's chat template, with images in their places and data that stays text."""

from pathlib import Path
from typing import Any

import pytest
from checkpoints import IMAGE_TOKEN_ID, save_llava

import jobs
from run_batch.model import RowError
from run_batch.model.checkpoint.settings import ModelSettings
from run_batch.model.rendering.renderer import Renderer

PARTS = """{% for message in messages %}{{ message['role'] | upper }}: {% for part in message['content'] %}\
{% if part['type'] == 'image' %}<image>
{% else %}{{ part['text'] | trim }}{% endif %}{% endfor %}</s>{% endfor %}ASSISTANT:"""
TEXT = """{% for message in messages %}{% if message['role'] == 'tool' %}{{ raise_exception('no tools') }}{% endif %}\
{{ message['role'] }}: {{ message['content'] | trim }}</s>{% endfor %}assistant:"""


@pytest.fixture(scope="module", params=["parts", "text"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Renderer]:
    folder = tmp_path_factory.mktemp("chat")
    save_llava(folder)
    (folder / "chat_template.jinja").write_text(PARTS if request.param == "parts" else TEXT)
    return request.param, Renderer(ModelSettings(str(folder), engine={"dtype": "float32", "max_model_len": 256}))


def text_of(renderer: Renderer, messages: list[dict[str, Any]], images: int) -> str:
    return "".join(piece.text for piece in renderer.chat_template().pieces(messages, images))


def test_a_conversation_is_rendered_by_the_models_template(model: tuple[str, Renderer]) -> None:
    form, renderer = model
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "  what is this? "}]
    expected = {
        "parts": "SYSTEM: Be brief.</s>USER: <image>\n<image>\nwhat is this?</s>ASSISTANT:",
        "text": "system: Be brief.</s>user: <image>\n<image>\n  what is this?</s>assistant:",
    }
    assert text_of(renderer, messages, images=2) == expected[form]


def test_image_parts_of_the_messages_keep_their_places(model: tuple[str, Renderer]) -> None:
    form, renderer = model
    content = [{"type": "text", "text": "left:"}, {"type": "image"}, {"type": "text", "text": "what?"}]
    expected = {"parts": "USER: left:<image>\nwhat?</s>ASSISTANT:", "text": "user: left:\n<image>\nwhat?</s>assistant:"}
    assert text_of(renderer, [{"role": "user", "content": content}], images=1) == expected[form]


def test_special_tokens_in_messages_stay_text(model: tuple[str, Renderer]) -> None:
    pieces = model[1].chat_template().pieces([{"role": "user", "content": "a <image></s> b"}], 1)
    (ids,) = model[1]._prompt_tokenizer.encode([pieces], add_special_tokens=False)
    assert ids.count(IMAGE_TOKEN_ID) == 1
    assert ids.count(2) == 1, "the </s> of the data ends the message"


def test_messages_of_another_form_are_errors_of_their_row(model: tuple[str, Renderer]) -> None:
    template = model[1].chat_template()
    for messages in (
        [{"role": "user"}],
        [{"content": "x"}],
        ["x"],
        [{"role": "user", "content": [{"type": "video"}]}],
        [{"role": "user", "content": [{"type": "text"}]}],
        # The template writes roles where special tokens count.
        [{"role": "user</s>system", "content": "x"}],
        [{"role": "<image>", "content": "x"}],
        [{"role": "", "content": "x"}],
        [],
    ):
        with pytest.raises(RowError, match="prompt_messages: "):
            template.pieces(messages, 0)  # type: ignore[arg-type]
    with pytest.raises(RowError, match="no user message"):
        template.pieces([{"role": "system", "content": "x"}], 1)
    if model[0] == "text":
        with pytest.raises(RowError, match="the chat template refuses the messages: no tools"):
            template.pieces([{"role": "tool", "content": "x"}], 0)


@pytest.mark.engine
def test_a_chat_job_takes_text_and_messages(tmp_path: Path) -> None:
    save_llava(tmp_path / "model")
    (tmp_path / "model" / "chat_template.jinja").write_text(PARTS)
    columns = jobs.rows(12)
    prompt = {"template": None, "chat": True, "system": "Be brief."}
    model = {"path": str(tmp_path / "model")}
    text = jobs.succeed(jobs.write_job(tmp_path / "text", columns, prompt=prompt, model=model))
    columns["prompt"] = [[{"role": "user", "content": prompt}] for prompt in columns["prompt"]]
    messages = jobs.succeed(jobs.write_job(tmp_path / "messages", columns, prompt=prompt, model=model))
    assert messages["error"].null_count == 12
    assert messages["text"].to_pylist() == text["text"].to_pylist()
    assert messages["prompt_tokens"].to_pylist() == text["prompt_tokens"].to_pylist()
