"""prompt.chat: conversations of the data or of the job, rendered by the model's chat template."""

import base64
import copy
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from checkpoints import IMAGE_TOKEN_ID, save_llava
from pictures import encoded, picture
from vllm.exceptions import VLLMValidationError
from vllm.renderers.chat_utils import parse_chat_messages
from vllm.renderers.hf import resolve_chat_template_content_format, safe_apply_chat_template

import jobs
from run_batch.io.inputs.source import RowBatch
from run_batch.jobs.job.columns import needed_columns
from run_batch.jobs.job.config import load_config
from run_batch.jobs.job.errors import JobError
from run_batch.jobs.job.prompt_column import PromptColumn
from run_batch.jobs.job.rows import MappedRow
from run_batch.jobs.mapping.row_mapper import RowMapper
from run_batch.model import RowError
from run_batch.model.checkpoint.settings import ModelSettings, SettingsError
from run_batch.model.plugin import announce_plugins, register
from run_batch.model.prompts.chat_template import ChatSettings, ChatTemplate
from run_batch.model.prompts.messages import parse_messages
from run_batch.model.rendering.renderer import Renderer

PARTS = """{% for message in messages %}{{ message['role'] | upper }}: {% for part in message['content'] %}\
{% if part['type'] == 'image' %}<image>
{% else %}{{ part['text'] | trim }}{% endif %}{% endfor %}</s>{% endfor %}\
{% if add_generation_prompt %}ASSISTANT:{% if slow is defined and slow %} hm{% endif %}{% endif %}"""
PLAIN = ChatSettings()
TEXT = """{% for message in messages %}{% if message['role'] == 'tool' %}{{ raise_exception('no tools') }}{% endif %}\
{{ message['role'] }}: {{ (message['content'].split('</s>') | last) | trim }}</s>{% endfor %}\
{% if add_generation_prompt %}assistant:{% endif %}"""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A LLaVA with a chat template of the kind asked for."""
    folders = {}
    for kind, template in {"parts": PARTS, "text": TEXT}.items():
        folders[kind] = tmp_path_factory.mktemp(kind)
        save_llava(folders[kind])
        (folders[kind] / "chat_template.jinja").write_text(template)
    return folders.__getitem__


@pytest.fixture(scope="module", params=["parts", "text"])
def model(request: pytest.FixtureRequest, checkpoint: Callable[[str], Path]) -> tuple[str, Renderer]:
    settings = ModelSettings(str(checkpoint(request.param)), engine={"dtype": "float32", "max_model_len": 256})
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
    chat = ChatTemplate(renderer._model_config, renderer._prompt_tokenizer, "<|image_{}|>".format, ChatSettings(TEXT))
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


class ChatJob:
    """A chat job's row mapper, and what it makes of rows."""

    def __init__(self, folder: Path, model: Path, columns: dict[str, Any] | pa.Table, **tables: Any) -> None:
        announce_plugins([], folder)
        register()
        prompt = {"template": None, "chat": True, **tables.pop("prompt", {})}
        tables["input"] = {"id_column": None, **tables.get("input", {})}
        job = jobs.write_job(folder, columns, prompt=prompt, model={"path": str(model)}, **tables)
        self.config = load_config(job)
        self.table = columns if isinstance(columns, pa.Table) else pa.table(columns)
        self.holds = tables.pop("holds", PromptColumn.TEXTS)

    def rows(self, holds: PromptColumn = PromptColumn.TEXTS) -> list[Any]:
        """Of each row its prompt as text, or the error."""
        mapper = RowMapper(self.config, self.table.schema, self.config.folder, holds)
        used = self.table.select(needed_columns(self.config, self.table.schema)).combine_chunks().to_batches()[0]
        names = [f"r{number}" for number in range(len(self.table))]
        return [
            self.shown(mapper, row) if isinstance(row, MappedRow) else row.error
            for row in mapper.map(RowBatch(0, used, names))
        ]

    @staticmethod
    def shown(mapper: RowMapper, row: MappedRow) -> str:
        text = mapper._model.tokenizer.decode(row.engine_input["prompt_token_ids"])
        # This tokenizer has no decoder for the characters that stand for white space.
        return re.sub("(<image>)+", "<image>", text).replace("<s>", "").replace("Ġ", " ").replace("Ċ", "\n")


def image(seed: int = 0) -> bytes:
    return encoded(picture(seed, (40, 40)), "PNG")


def test_one_question_is_asked_of_every_image(tmp_path: Path, checkpoint: Callable[[str], Path]) -> None:
    images = [image(), None]
    job = ChatJob(tmp_path, checkpoint("parts"), {"image": images}, prompt={"template": "Describe this image."})
    assert job.rows() == [
        "USER: <image>\nDescribe this image.</s>ASSISTANT:",
        "USER: Describe this image.</s>ASSISTANT:",
    ]


def test_the_template_is_the_users_message(tmp_path: Path, checkpoint: Callable[[str], Path]) -> None:
    columns = {"image": [image()], "prompt": ["a <image></s>"], "name": ["Ann"]}
    template = "{name} asks: {prompt}"
    prompt = {"template": template, "system": "Be brief.", "prefill": "{name}, it is"}
    job = ChatJob(tmp_path, checkpoint("parts"), columns, prompt=prompt)
    (shown,) = job.rows()
    assert shown == "SYSTEM: Be brief.</s>USER: <image>\nAnn asks: a <image></s></s>ASSISTANT: Ann, it is"


def test_the_models_placeholder_in_the_template_is_the_place_of_the_image(
    tmp_path: Path, checkpoint: Callable[[str], Path]
) -> None:
    for kind, expected in {
        "parts": "USER: Look:<image>\nwell?</s>ASSISTANT:",
        "text": "user: Look: <image> well?</s>assistant:",
    }.items():
        job = ChatJob(
            tmp_path / kind, checkpoint(kind), {"image": [image()]}, prompt={"template": "Look: <image> well?"}
        )
        assert job.rows() == [expected]


def test_a_marker_in_the_data_is_the_place_of_the_next_image(tmp_path: Path, checkpoint: Callable[[str], Path]) -> None:
    texts = ["[img] or [img]?", "no marker", "[img]?"]
    columns = {"image": [[image(0), image(1)], [image(0)], [image(0), image(1)]], "prompt": texts}
    job = ChatJob(tmp_path / "a", checkpoint("text"), columns, prompt={"image_marker": "[img]"})
    shown = job.rows()
    assert shown[:2] == [
        "user: <image> or <image>?</s>assistant:",
        "user: <image>\nno marker</s>assistant:",
    ]
    assert shown[2] == "placeholders: the messages have 1 places for images, the row has 2"

    # Without a chat template, the marker is the only place.
    template = {"template": "Q: {prompt}", "chat": False, "image_marker": "[img]"}
    shown = ChatJob(tmp_path / "b", checkpoint("text"), columns, prompt=template).rows()
    assert shown[0] == "Q: <image> or <image>?"
    assert shown[1] == "placeholders: the prompt has 0 places for images, the row has 1"
    assert shown[2] == "placeholders: the prompt has 1 places for images, the row has 2"


def test_examples_stand_before_the_rows_own_messages(tmp_path: Path, checkpoint: Callable[[str], Path]) -> None:
    (tmp_path / "shots").mkdir()
    (tmp_path / "shots" / "one.png").write_bytes(image(1))
    examples = [{"image": "shots/one.png", "text": "This?", "answer": "A cat."}, {"text": "2 + 2?", "answer": "4"}]
    columns = {"image": [image(0)], "prompt": ["And this?"]}
    prompt = {"system": "Be brief.", "examples": examples}
    job = ChatJob(tmp_path, checkpoint("parts"), columns, prompt=prompt)
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
    tmp_path: Path, checkpoint: Callable[[str], Path]
) -> None:
    images = [image()] * 4
    structs = ChatJob(tmp_path / "structs", checkpoint("parts"), {"image": images, "prompt": conversations()})
    assert structs.rows(PromptColumn.CONVERSATIONS) == EXPECTED
    texts = [json.dumps(value) for value in conversations()]
    text = ChatJob(tmp_path / "json", checkpoint("parts"), {"image": [*images, image()], "prompt": [*texts, "What?"]})
    shown = text.rows(PromptColumn.JSON_CONVERSATIONS)
    assert shown[:4] == EXPECTED
    assert shown[4].startswith("prompt_messages: the messages are not JSON")


def test_a_conversation_in_a_column_of_texts_is_an_error_of_its_row(
    tmp_path: Path, checkpoint: Callable[[str], Path]
) -> None:
    texts = ["What?", json.dumps(conversations()[1]), "[{'role': 'system', 'content': 'Obey.'}]", "[1, 2]", None]
    job = ChatJob(tmp_path, checkpoint("parts"), {"image": [image()] * 5, "prompt": texts})
    shown = job.rows()
    assert shown[0] == "USER: <image>\nWhat?</s>ASSISTANT:"
    assert all(error.startswith("prompt_messages: the row reads like a conversation") for error in shown[1:3])
    assert shown[3] == "USER: <image>\n[1, 2]</s>ASSISTANT:"
    assert shown[4] == "prompt_null: column prompt is null"


def test_messages_bring_their_own_images(tmp_path: Path, checkpoint: Callable[[str], Path]) -> None:
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
    job = ChatJob(tmp_path, checkpoint("parts"), columns)
    shown = job.rows(PromptColumn.JSON_CONVERSATIONS)
    assert shown[0] == shown[3] == "USER: <image>\n<image>\nSame?</s>ASSISTANT:"
    assert shown[1] == "USER: <image>\nSame?</s>ASSISTANT:"
    assert shown[2].startswith("path_not_allowed: ")


def test_parts_that_name_images_which_are_not_there_say_so(tmp_path: Path, checkpoint: Callable[[str], Path]) -> None:
    rows = [[{"type": "image", "index": 5}], [{"type": "image", "index": 0}] * 2, [{"type": "image", "index": 1}]]
    texts = [json.dumps([{"role": "user", "content": [*content, {"text": "?"}]}]) for content in rows]
    columns = {"image": [[image(2)], [image(2)], [image(2), image(3)]], "prompt": texts}
    shown = ChatJob(tmp_path, checkpoint("parts"), columns).rows(PromptColumn.JSON_CONVERSATIONS)
    assert shown == [
        "placeholders: a part has index 5, counted from 0; the row has 1 images",
        "USER: <image>\n<image>\n?</s>ASSISTANT:",
        "placeholders: the messages have 1 places for images, the row has 2",
    ]


def test_contradictions_between_a_row_and_its_job_are_errors_of_the_row(
    tmp_path: Path, checkpoint: Callable[[str], Path]
) -> None:
    columns = {"image": [image()] * 4, "prompt": [json.dumps(value) for value in conversations()]}
    job = ChatJob(tmp_path, checkpoint("parts"), columns, prompt={"system": "Be brief.", "prefill": "It is"})
    shown = job.rows(PromptColumn.JSON_CONVERSATIONS)
    assert shown[0] == "SYSTEM: Be brief.</s>USER: <image>\nWhat?</s>ASSISTANT: It is"
    assert "prompt.system is set" in shown[1]
    assert "prompt.prefill is set" in shown[2]


def test_special_tokens_do_not_arise_where_texts_meet(tmp_path: Path, checkpoint: Callable[[str], Path]) -> None:
    apart = [{"type": "text", "text": "is it </"}, {"type": "text", "text": "s> even?"}]
    columns = {
        "image": [None],
        "prompt": [json.dumps([{"role": "user", "content": apart}])],
        "a": ["</"],
        "b": ["s>"],
        "tag": ["s"],
    }
    job = ChatJob(tmp_path / "parts", checkpoint("parts"), columns)
    assert ids_of(job, PromptColumn.JSON_CONVERSATIONS).count(2) == 1
    for number, template in enumerate(("{a}{b}", "<{tag}>no</{tag}>", "</{b}", "{a}s>")):
        job = ChatJob(tmp_path / str(number), checkpoint("parts"), columns, prompt={"template": template})
        assert ids_of(job).count(2) == 1, template
        assert ids_of(job).count(1) == 0, template


def ids_of(job: ChatJob, holds: PromptColumn = PromptColumn.TEXTS) -> list[int]:
    """The token ids of the prompt of a job's only row."""
    mapper = RowMapper(job.config, job.table.schema, job.config.folder, holds)
    used = job.table.select(needed_columns(job.config, job.table.schema)).to_batches()[0]
    (row,) = mapper.map(RowBatch(0, used, ["r"]))
    assert isinstance(row, MappedRow), row
    return row.engine_input["prompt_token_ids"]


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
    tmp_path: Path, checkpoint: Callable[[str], Path], prompt: dict[str, Any], reason: str
) -> None:
    job = ChatJob(tmp_path, checkpoint("text"), {"image": [None], "prompt": ["hi"]}, prompt=prompt)
    with pytest.raises(JobError, match=reason):
        job.rows()


def test_half_of_a_surrogate_pair_is_an_error_of_its_row(tmp_path: Path, checkpoint: Callable[[str], Path]) -> None:
    texts = [json.dumps([{"role": "user", "content": text}]) for text in ("\ud83d hi", "\U0001f600 hi")]
    job = ChatJob(tmp_path, checkpoint("text"), {"image": [None, None], "prompt": texts})
    broken, whole = job.rows(PromptColumn.JSON_CONVERSATIONS)
    assert broken.startswith("text_encoding: ")
    assert whole.startswith("user: ")


def test_a_developer_among_system_messages_is_not_lost(tmp_path: Path, checkpoint: Callable[[str], Path]) -> None:
    turns = [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": "What?"}]
    texts = [json.dumps(turns), json.dumps([{"role": "system", "content": "Hm."}, *turns])]
    columns = {"image": [None, None], "prompt": texts}
    alone, merged = ChatJob(tmp_path / "a", checkpoint("parts"), columns).rows(PromptColumn.JSON_CONVERSATIONS)
    assert alone == "SYSTEM: Be brief.</s>USER: What?</s>ASSISTANT:"
    assert merged.startswith("prompt_messages: the chat template has no developer messages")
    job = ChatJob(tmp_path / "b", checkpoint("parts"), columns, prompt={"system": "Hm."})
    assert all("prompt.system is set" in error for error in job.rows(PromptColumn.JSON_CONVERSATIONS))


@pytest.mark.engine
def test_a_chat_job_takes_text_messages_and_json(tmp_path: Path, checkpoint: Callable[[str], Path]) -> None:
    columns = jobs.rows(6)
    prompt = {"template": None, "chat": True, "system": "Be brief."}
    model = {"path": str(checkpoint("parts"))}
    text = jobs.succeed(jobs.write_job(tmp_path / "text", columns, prompt=prompt, model=model))
    columns["prompt"] = [json.dumps([{"role": "user", "content": prompt}]) for prompt in columns["prompt"]]
    job = jobs.write_job(tmp_path / "json", columns, prompt=prompt, model=model)
    assert "conversations as JSON text" in jobs.run(job, command="check").stdout
    messages = jobs.succeed(job)
    assert messages["error"].null_count == 6
    assert messages["text"].to_pylist() == text["text"].to_pylist()
    assert messages["prompt_tokens"].to_pylist() == text["prompt_tokens"].to_pylist()
