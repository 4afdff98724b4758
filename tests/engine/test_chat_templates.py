"""Chat templates: messages become the text that vLLM's own chat makes of them, special tokens in them stay text."""

import base64
import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from chat_jobs import PARTS, TEXT, image
from checkpoints import IMAGE_TOKEN_ID
from vllm.exceptions import VLLMValidationError
from vllm.renderers.chat_utils import parse_chat_messages
from vllm.renderers.hf import resolve_chat_template_content_format, safe_apply_chat_template

from run_batch.model import RowError
from run_batch.model.checkpoint.settings import ModelSettings, SettingsError
from run_batch.model.prompts.chat_template import ChatSettings, ChatTemplate
from run_batch.model.prompts.messages import parse_messages
from run_batch.model.rendering.renderer import Renderer

PLAIN = ChatSettings()


@pytest.fixture(scope="module", params=["parts", "text"])
def model(request: pytest.FixtureRequest, chat_checkpoint: Callable[[str], Path]) -> tuple[str, Renderer]:
    settings = ModelSettings(str(chat_checkpoint(request.param)), engine={"dtype": "float32", "max_model_len": 256})
    return request.param, Renderer(settings)


def text_of(renderer: Renderer, messages: list[dict[str, Any]], settings: ChatSettings = PLAIN) -> str:
    """The prompt of a conversation; parts of type image_url without an image stand for the row's next one."""
    messages = json.loads(json.dumps(messages).replace('{"type": "image_url"}', '{"type": "image"}'))
    return "".join(piece.text for piece in renderer.chat_template(settings).pieces(parse_messages(messages)))


def test_a_conversation_is_rendered_by_the_models_template(model: tuple[str, Renderer]) -> None:
    form, renderer = model
    question = [{"type": "image"}, {"type": "image"}, {"type": "text", "text": "  what is this? "}]
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": question}]
    expected = {
        "parts": "SYSTEM: Be brief.</s>USER: <image>\n<image>\nwhat is this?</s>ASSISTANT:",
        "text": "system: Be brief.</s>user: <image>\n<image>\n  what is this?</s>assistant:",
    }
    assert text_of(renderer, messages) == expected[form]


def test_image_parts_of_the_messages_keep_their_places(model: tuple[str, Renderer]) -> None:
    form, renderer = model
    content = [{"type": "text", "text": "left:"}, {"type": "image"}, {"type": "text", "text": "what?"}]
    expected = {"parts": "USER: left:<image>\nwhat?</s>ASSISTANT:", "text": "user: left:\n<image>\nwhat?</s>assistant:"}
    assert text_of(renderer, [{"role": "user", "content": content}]) == expected[form]


def test_placeholders_with_numbers_are_counted_through_the_whole_conversation(model: tuple[str, Renderer]) -> None:
    """As those of Phi-3-vision and Phi-4-multimodal."""
    renderer = model[1]
    chat = ChatTemplate(
        renderer._model_config, renderer._prompt_tokenizer, "<|image_{}|>".format, lambda _: None, ChatSettings(TEXT)
    )
    image, ask = {"type": "image"}, {"type": "text", "text": "and now?"}
    turns = [[image, image, ask], [ask], [image, ask]]
    messages = [
        {"role": role, "content": turn} for role, turn in zip(("user", "assistant", "user"), turns, strict=True)
    ]
    assert "".join(piece.text for piece in chat.pieces(parse_messages(messages))) == (
        "user: <|image_1|>\n<|image_2|>\nand now?</s>assistant: and now?</s>user: <|image_3|>\nand now?</s>assistant:"
    )


def test_a_final_message_of_the_assistant_is_continued(model: tuple[str, Renderer]) -> None:
    form, renderer = model
    turns = [{"role": "user", "content": "what?"}, {"role": "assistant", "content": "A cat, </s> or "}]
    assert (
        text_of(renderer, [*turns[:1], {**turns[1], "content": "A cat"}])
        == {
            "parts": "USER: what?</s>ASSISTANT: A cat",
            "text": "user: what?</s>assistant: A cat",
        }[form]
    )
    if form == "parts":
        assert text_of(renderer, turns) == "USER: what?</s>ASSISTANT: A cat, </s> or"


def test_special_tokens_in_messages_stay_text(model: tuple[str, Renderer]) -> None:
    form, renderer = model
    content = "a <image> b" + ("</s> c" if form == "parts" else "")
    pieces = renderer.chat_template(PLAIN).pieces(
        parse_messages([{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": content}]}])
    )
    (ids,) = renderer._prompt_tokenizer.encode([pieces], add_special_tokens=False)
    assert ids.count(IMAGE_TOKEN_ID) == 1
    assert ids.count(2) == 1, "the </s> of the data ends the message"


def test_a_template_may_look_into_texts_that_read_like_special_tokens(model: tuple[str, Renderer]) -> None:
    """As many drop the reasoning of earlier turns: the token that they look for is gone from the prompt."""
    form, renderer = model
    if form == "parts":
        pytest.skip("this template does not look into texts")
    messages = [{"role": "user", "content": "thoughts</s> answer"}]
    assert text_of(renderer, messages) == "user: answer</s>assistant:"
    with pytest.raises(RowError, match=r"prompt_messages: .* reads like a special token"):
        text_of(renderer, [{"role": "user", "content": "thoughts</s> <image> answer"}])


def test_messages_that_the_template_refuses_are_errors_of_their_row(model: tuple[str, Renderer]) -> None:
    form, renderer = model
    if form == "text":
        with pytest.raises(RowError, match="the chat template refuses the messages: no tools"):
            text_of(renderer, [{"role": "tool", "content": "x"}])


ALL_FIELDS = """{% for message in messages %}[{{ message['role'] }} {{ message['name'] }}]{% if message['reasoning'] %}\
({{ message['reasoning_content'] }}){% endif %}{% if message['content'] is string %}{{ message['content'] }}\
{% else %}{% for part in message['content'] %}{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}|\
{% endif %}{% endfor %}{% endif %}{% for call in message['tool_calls'] or [] %}{{ call.function.name }}\
{{ call.function.arguments | tojson }}{% endfor %}{{ message['tool_call_id'] }}
{% endfor %}{% if add_generation_prompt %}go:{% endif %}"""
CALL = {"id": "c1", "type": "function", "function": {"name": "find", "arguments": '{"word": "a \\"cat\\""}'}}
CONVERSATIONS: dict[str, list[dict[str, Any]]] = {
    "text": [{"role": "user", "content": " What? "}],
    "several parts": [{"role": "user", "content": [{"type": "text", "text": text} for text in ("a", "", "b")]}],
    "image": [{"role": "user", "content": [{"type": "image_url"}, {"type": "text", "text": "What?"}]}],
    "images": [{"role": "user", "content": [{"type": "image_url"}, {"type": "image_url"}]}],
    "empty text": [{"role": "user", "content": [{"type": "image_url"}, {"type": "text", "text": ""}]}],
    "developer": [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": "What?"}],
    "name": [{"role": "user", "name": "ann", "content": "What?"}],
    "tools": [
        {"role": "user", "content": "Find it."},
        {"role": "assistant", "content": None, "tool_calls": [CALL], "reasoning": "hm"},
        {
            "role": "tool",
            "tool_call_id": "c1",
            "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}],
        },
    ],
    "continued": [{"role": "user", "content": "What?"}, {"role": "assistant", "content": "A cat "}],
}


@pytest.mark.parametrize("template", [PARTS, ALL_FIELDS, TEXT], ids=["parts", "all fields", "text"])
@pytest.mark.parametrize("messages", CONVERSATIONS.values(), ids=CONVERSATIONS.keys())
def test_prompts_are_those_of_vllms_chat(
    model: tuple[str, Renderer], template: str, messages: list[dict[str, Any]]
) -> None:
    renderer = model[1]
    try:
        expected = chat_of_vllm(renderer, template, messages)
    except VLLMValidationError:  # the template does not take this conversation
        with pytest.raises(RowError):
            text_of(renderer, messages, ChatSettings(template))
    else:
        assert text_of(renderer, messages, ChatSettings(template)) == expected


def chat_of_vllm(renderer: Renderer, template: str, messages: list[dict[str, Any]]) -> str:
    """The prompt that `LLM.chat` makes of a conversation; parts of type image_url get an image."""
    config, tokenizer = renderer._model_config, renderer.tokenizer
    url = "data:image/png;base64," + base64.b64encode(image()).decode()
    messages = copy.deepcopy(messages)
    for message in messages:
        for part in message["content"] if isinstance(message["content"], list) else ():
            if part["type"] == "image_url":
                part["image_url"] = {"url": url}
    form = resolve_chat_template_content_format(template, None, "auto", tokenizer, model_config=config)
    conversation, _, _ = parse_chat_messages(messages, config, content_format=form)  # type: ignore[arg-type]
    continued = messages[-1]["role"] == "assistant"
    return safe_apply_chat_template(
        config,
        tokenizer,
        conversation,
        chat_template=template,
        tokenize=False,
        add_generation_prompt=not continued,
        continue_final_message=continued,
    )


def test_variables_and_tools_that_a_template_does_not_read_are_refused(model: tuple[str, Renderer]) -> None:
    form, renderer = model
    question = [{"role": "user", "content": "x"}]
    if form == "parts":
        assert text_of(renderer, question, ChatSettings(variables={"slow": True})).endswith("ASSISTANT: hm")
        assert text_of(renderer, question, ChatSettings(variables={"slow": False})).endswith("ASSISTANT:")
    for settings, name in (
        (ChatSettings(variables={"enable_thinking": False}), "chat_template_kwargs.enable_thinking"),
        (ChatSettings(variables={"add_generation_prompt": False}), "chat_template_kwargs.add_generation_prompt"),
        (ChatSettings(variables={"tokenize": True}), "chat_template_kwargs.tokenize"),
        (ChatSettings(tools=[{"type": "function", "function": {"name": "f"}}]), "prompt.tools"),
    ):
        with pytest.raises(SettingsError, match=name):
            renderer.chat_template(settings)


def test_a_template_of_the_job_reads_its_tools(model: tuple[str, Renderer]) -> None:
    template = "{{ tools[0].function.name }}: {{ messages[0]['content'] }}"
    settings = ChatSettings(template, tools=[{"type": "function", "function": {"name": "f"}}])
    assert text_of(model[1], [{"role": "user", "content": "x"}], settings) == "f: x"
