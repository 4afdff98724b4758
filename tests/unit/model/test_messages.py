"""Chat messages in the forms in which people have them: one meaning each, or an error that names what is not taken."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from run_batch.model import RowError
from run_batch.model.prompts.message_parts import MessageImage, MessageVideo
from run_batch.model.prompts.messages import Message, parse_messages
from run_batch.model.prompts.tokenizer import Piece


def shown(messages: list[Message]) -> list[tuple[str, list[list[Any]]]]:
    """Role and parts of each message: texts, and images as `MessageImage`."""
    return [
        (m.role, [[item.text if isinstance(item, Piece) else item for item in part] for part in m.parts])
        for m in messages
    ]


NEXT = MessageImage()
EXPECTED = [("user", [[NEXT], ["What?"]]), ("assistant", [["A cat."]])]


@pytest.mark.parametrize(
    "conversation",
    [
        [
            {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What?"}]},
            {"role": "assistant", "content": "A cat."},
        ],
        # As Arrow gives structs back: every field there, most of them null.
        [
            {
                "role": "user",
                "name": None,
                "content": [
                    {"type": "image", "text": None, "index": None, "image_url": None},
                    {"type": "text", "text": "What?", "index": None, "image_url": None},
                ],
            },
            {"role": "assistant", "name": None, "content": [{"type": "text", "text": "A cat.", "image_url": None}]},
        ],
        # OpenAI's Responses API, and parts that are plain text.
        [
            {"role": "user", "content": [{"type": "image"}, {"type": "input_text", "text": "What?"}]},
            {"role": "assistant", "content": ["A cat."]},
        ],
    ],
)
def test_messages_have_one_meaning_in_all_their_forms(conversation: list[dict[str, Any]]) -> None:
    assert shown(parse_messages(conversation)) == EXPECTED


def test_messages_of_sharegpt_are_taken_by_their_speakers() -> None:
    turns = [("system", "Be brief."), ("human", "What?"), ("gpt", "A cat."), ("user", "Sure?"), ("assistant", "Yes.")]
    found = parse_messages([{"from": speaker, "value": text, "weight": 1} for speaker, text in turns])
    assert [message.role for message in found] == ["system", "user", "assistant", "user", "assistant"]
    assert [message.parts for message in found] == [[[Piece(text, trusted=False)]] for _, text in turns]


def test_parts_without_messages_are_what_one_user_says() -> None:
    assert shown(parse_messages([{"type": "image"}, {"type": "text", "text": "What?"}])) == EXPECTED[:1]


@pytest.mark.parametrize(
    ("part", "cell"),
    [
        ({"type": "image_url", "image_url": {"url": "https://a/b.png", "detail": "auto"}}, "https://a/b.png"),
        ({"type": "image_url", "image_url": "https://a/b.png"}, "https://a/b.png"),
        ({"type": "input_image", "image_url": "data:image/png;base64,AA=="}, "data:image/png;base64,AA=="),
        ({"type": "image", "image": "b.png"}, "b.png"),
        ({"type": "image", "url": "https://a/b.png"}, "https://a/b.png"),
        ({"type": "image", "path": "b.png"}, {"bytes": None, "path": "b.png"}),
        ({"type": "image", "bytes": b"x"}, {"bytes": b"x", "path": None}),
        ({"type": "image", "image": {"bytes": b"x", "path": None}}, {"bytes": b"x", "path": None}),
        ({"type": "image", "image": b"x"}, b"x"),
        ({"type": "image", "base64": "iVBORw0KGgo="}, "iVBORw0KGgo="),
        ({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBO"}}, "iVBO"),
        ({"type": "image", "source": {"type": "url", "url": "https://a/b.png"}}, "https://a/b.png"),
        ({"image": "b.png"}, "b.png"),
        ({"image_url": {"url": "https://a/b.png"}}, "https://a/b.png"),
    ],
    ids=str,
)
def test_an_image_is_found_where_a_part_holds_it(part: dict[str, Any], cell: Any) -> None:
    (message,) = parse_messages([{"role": "user", "content": [part, {"text": "What?"}]}])
    ((image,), (text,)) = message.parts
    expected = cell if not isinstance(cell, dict) else {k: v for k, v in cell.items() if v is not None}
    found = image.cell if not isinstance(image.cell, dict) else {k: v for k, v in image.cell.items() if v is not None}
    assert (found, text.text) == (expected, "What?")


@pytest.mark.parametrize(
    ("part", "cell"),
    [
        ({"type": "video_url", "video_url": {"url": "https://a/b.mp4"}}, "https://a/b.mp4"),
        ({"type": "video_url", "video_url": "https://a/b.mp4", "image_url": {"url": ""}}, "https://a/b.mp4"),
        ({"type": "video", "video": "b.mp4", "text": ""}, "b.mp4"),
        ({"type": "video", "video": {"bytes": b"x", "path": None}}, {"bytes": b"x", "path": None}),
        ({"type": "video", "url": "https://a/b.mp4"}, "https://a/b.mp4"),
        ({"type": "video", "path": "b.mp4"}, {"bytes": None, "path": "b.mp4"}),
        ({"video_url": {"url": "https://a/b.mp4"}}, "https://a/b.mp4"),
        ({"video": "b.mp4"}, "b.mp4"),
        ({"type": "video"}, None),
    ],
    ids=str,
)
def test_a_video_is_found_where_a_part_holds_it(part: dict[str, Any], cell: Any) -> None:
    for conversation in ([part, {"text": "What?"}], [{"role": "user", "content": [part, {"text": "What?"}]}]):
        (message,) = parse_messages(conversation)
        assert [list(held) for held in message.parts] == [[MessageVideo(cell)], [Piece("What?", trusted=False)]]


@pytest.mark.parametrize(("index", "expected"), [(1, 1), (1.0, 1), (0.0, 0), (None, None), (float("nan"), None)])
def test_parts_may_say_which_of_the_rows_images_they_are(index: Any, expected: int | None) -> None:
    (message,) = parse_messages([{"role": "user", "content": [{"type": "image", "index": index, "text": None}]}])
    assert message.places(MessageImage) == [MessageImage(index=expected)]


def test_names_of_roles_in_data_sets_are_those_of_chat_templates() -> None:
    names = ["human", "gpt", "User", "model", "SYSTEM", "Assistant", "critic"]
    roles = [message.role for message in parse_messages([{"role": name, "content": "x"} for name in names])]
    assert roles == ["user", "assistant", "user", "assistant", "system", "assistant", "critic"]


def test_what_fills_up_the_columns_of_a_table_is_no_content() -> None:
    filled = {"type": "text", "text": "What?", "image": "", "image_url": {"url": ""}, "bytes": None}
    image = {"type": "image", "text": "", "image": "a.png", "image_url": {"url": None}}
    assert shown(parse_messages([{"role": "user", "content": [filled, image], "images": []}])) == [
        ("user", [["What?"], [MessageImage("a.png")]])
    ]


def test_what_templates_read_of_a_message_is_kept_as_vllm_gives_it_to_them() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "find", "arguments": '{"word": "cat"}'}}
    messages = parse_messages(
        [
            {"role": "user", "name": "ann", "content": "Find it."},
            {"role": "assistant", "content": None, "tool_calls": [call], "reasoning_content": "hm"},
            {"role": "tool", "tool_call_id": "c1", "content": "found"},
        ]
    )
    called = {**call, "function": {"name": "find", "arguments": {"word": "cat"}}}
    assert [message.fields for message in messages] == [
        {"name": "ann"},
        {"reasoning": "hm", "reasoning_content": "hm", "tool_calls": [called]},
        {"tool_call_id": "c1"},
    ]


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ("x", "cannot be a str"),
        ({"role": "user"}, "no content"),
        ({"content": "x"}, "needs a role"),
        ({"role": 1, "content": "x"}, "needs a role"),
        # Templates write roles where special tokens count.
        ({"role": "user</s>system", "content": "x"}, "the role 'user</s>system'"),
        ({"role": "<image>", "content": "x"}, "the role '<image>'"),
        ({"role": "", "content": "x"}, "the role ''"),
        ({"role": "user", "content": 1}, "cannot be a int"),
        ({"role": "user", "content": [1]}, "cannot be a int"),
        ({"role": "user", "content": [{"type": "video_url"}]}, "has no video"),
        ({"role": "user", "content": [{"type": "video", "video": "a.mp4", "fps": 2}]}, "the key 'fps', which is not"),
        ({"role": "user", "content": [{"type": "video_url", "video_url": {"url": "a", "fps": 2}}]}, "the key 'fps'"),
        ({"role": "user", "content": [{"type": "video", "video": ["a.jpg", "b.jpg"]}]}, "frames of a video as images"),
        ({"role": "user", "content": [{"type": "video", "video": "a", "url": "b"}]}, "video twice: video, url"),
        ({"role": "user", "content": [{"type": "video", "image_url": "a"}]}, "the key 'image_url'"),
        ({"role": "user", "content": [{"type": "image", "video_url": "a"}]}, "holds a video (video_url)"),
        ({"role": "user", "content": [{"type": "text", "text": "x", "video": "a"}]}, "both a text and its video"),
        ({"role": "user", "content": [{"type": "video", "video": "a", "text": "x"}]}, "both a text and its video"),
        ({"role": "user", "content": [{"type": "video", "index": -1}]}, "index -1"),
        ({"role": "user", "content": "x", "videos": ["a"]}, "'videos'"),
        ({"role": "user", "content": '[{"type": "video_url", "video_url": {"url": "a"}}]'}, "parts as JSON text"),
        ({"role": "user", "content": [{"type": "input_audio"}]}, "type 'input_audio'"),
        ({"role": "user", "content": [{"type": "text"}]}, "type text has no text"),
        ({"role": "user", "content": [{"type": "image_url"}]}, "has no image"),
        ({"role": "user", "content": [{"type": "image", "image": "a", "url": "b"}]}, "image twice: image, url"),
        ({"role": "user", "content": [{"text": "x", "image": b"x"}]}, "both a text and its image"),
        ({"role": "user", "content": [{"type": "text", "text": "x", "image": b"x"}]}, "both a text and its image"),
        ({"role": "user", "content": [{"type": "image", "image": b"x", "text": "x"}]}, "both a text and its image"),
        ({"role": "user", "content": [{"type": "image", "text": "x"}]}, "holds a text"),
        ({"role": "user", "content": [{"type": "image", "file_id": "f1"}]}, "the key 'file_id'"),
        ({"role": "user", "content": [{"type": "image", "index": "1"}]}, "index 1;"),
        ({"role": "user", "content": [{"type": "image", "index": -1}]}, "index -1"),
        ({"role": "user", "content": [{"type": "image", "index": True}]}, "index True"),
        ({"role": "user", "content": [{"type": "image", "index": 0.5}]}, "index 0.5"),
        ({"role": "user", "content": [{"type": "image_url", "image_url": {}}]}, "has no image"),
        ({"role": "user", "content": '[{"type": "text", "text": "hi"}]'}, "a list of parts as JSON text"),
        ({"role": "user", "content": "x", "image_urls": ["a"]}, "'image_urls'"),
        ({"role": "user", "content": "x", "img": "a"}, "'img'"),
        ({"role": "user", "content": "x", "media_files": ["a"]}, "'media_files'"),
        ({"role": "assistant", "content": "", "tool_calls": 5}, "tool_calls cannot be a int"),
        ({"role": "assistant", "content": "", "tool_calls": {"function": {}}}, "tool_calls cannot be a dict"),
        ({"role": "user", "content": "x", "images": ["aGk="]}, "'images'"),
        ({"role": "assistant", "content": "x", "function_call": {"name": "f"}}, "function_call"),
        ({"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{"}}]}, "are not JSON"),
        ({"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "[]"}}]}, "no JSON object"),
        ({"role": "assistant", "tool_calls": [{}]}, "a function with a name"),
        ({"from": "observation", "value": "x"}, "from 'observation'"),
        ({"from": "human", "value": None}, "value that is text"),
    ],
    ids=str,
)
def test_what_is_not_taken_is_named(message: Any, reason: str) -> None:
    with pytest.raises(RowError, match="prompt_messages: ") as caught:
        parse_messages([message])
    assert reason in str(caught.value)


KEYS = ["role", "content", "from", "value", "type", "text", "image", "image_url", "url", "bytes", "path", "index"]
KEYS += ["video", "video_url", "source", "data", "tool_calls", "function", "name"]
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.binary(max_size=2)
    | st.sampled_from(["user", "assistant", "image", "video", "text", "gpt", "{", "[{}]", ""])
)


def nested(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=5)


@settings(deadline=None, max_examples=500)
@given(st.lists(st.recursive(LEAVES, nested, max_leaves=20), max_size=3))
def test_whatever_a_row_holds_is_messages_or_an_error_of_the_row(value: list[Any]) -> None:
    try:
        assert all(isinstance(message, Message) for message in parse_messages(value))
    except RowError as error:
        assert error.kind == "prompt_messages"


def test_a_row_without_messages_is_an_error() -> None:
    with pytest.raises(RowError, match="no messages"):
        parse_messages([])
