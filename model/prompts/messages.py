"""Chat messages as people write them, brought to one form: OpenAI's, ShareGPT's, and parts with or without types.

What cannot be brought to that form is an error of its row that names the key or type: a message that is answered
without one of its parts would be answered wrongly.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from run_batch.model.declaration import RowError
from run_batch.model.prompts.tokenizer import Piece

_ROLE = re.compile(r"[A-Za-z][A-Za-z_-]{0,31}")
# Names that data sets have for the roles that chat templates know.
_ROLES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "model": "assistant",
    "assistant": "assistant",
    "system": "system",
}
_TEXT_TYPES = ("text", "input_text", "output_text")
_IMAGE_TYPES = ("image", "image_url", "input_image")
_IMAGE_KEYS = ("image", "image_url", "url", "base64", "data", "source")
# What a part of type image may have beside its image, or beside nothing if it stands for one of the row.
_KEYS_OF_NO_IMAGE = {"type", "index", "text", "detail", "cache_control"}
# Names of keys by which messages hold what the model is meant to see, in forms that are not taken here.
_REFUSED_KEY = re.compile(
    r"(.*_)?(images?|imgs?|audios?|videos?|media|files?|attachments?)(_.*)?|tools|function_call", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class MessageImage:
    """An image in a message.

    Attributes:
        cell: the image, where the message itself holds it: bytes, text or a struct, as in a column of images.
        index: which of the row's other images it is, from 0; None for the next one.
    """

    cell: Any = None
    index: int | None = None


@dataclass(frozen=True, slots=True)
class MessageVideo:
    """A video in a message.

    Attributes:
        index: which of the row's videos it is, from 0; None for the next one.
    """

    index: int | None = None


Part: TypeAlias = Sequence[Piece | MessageImage | MessageVideo]


@dataclass(frozen=True, slots=True)
class Message:
    """A message of a conversation.

    Attributes:
        role: `user`, `assistant`, `system`, or another one that the chat template knows.
        parts: what the message says. Texts and images within one part belong on one line.
        fields: what else chat templates read of a message, by the names in which vLLM gives it to them.
    """

    role: str
    parts: Sequence[Part]
    fields: Mapping[str, Any] = field(default_factory=dict)

    def images(self) -> list[MessageImage]:
        """The images of all parts, in order."""
        return [item for part in self.parts for item in part if isinstance(item, MessageImage)]

    def videos(self) -> list[MessageVideo]:
        """The videos of all parts, in order."""
        return [item for part in self.parts for item in part if isinstance(item, MessageVideo)]


def text_message(role: str, text: str, trusted: bool = False) -> Message:
    """A message of one text."""
    return Message(role, [[Piece(text, trusted)]])


def parse_messages(value: Sequence[Any]) -> list[Message]:
    """Bring a conversation to one form.

    Args:
        value: messages with `role` and `content` (a text, or parts), or with `from` and `value` as in ShareGPT's data;
            or the parts of one user message.

    Raises:
        RowError: `prompt_messages`.
    """
    if not value:
        raise _refusal("the row has no messages")
    if all(map(_is_part, value)):
        return [Message("user", [_part(item) for item in value])]
    return [_message(item) for item in value]


def _is_part(item: Any) -> bool:
    """Whether an item of a conversation is a part of a message without a role."""
    if not isinstance(item, Mapping):
        return False
    given = {key for key, value in item.items() if value is not None}
    return not given & {"role", "from"} and bool(given & {"type", "text", "image", "image_url"})


def _refusal(message: str) -> RowError:
    return RowError("prompt_messages", message)


def _message(value: Any) -> Message:
    if not isinstance(value, Mapping):
        raise _refusal(f"a chat message cannot be a {type(value).__name__}; it needs a role and a content")
    given = {key: item for key, item in value.items() if item is not None}
    for key, item in given.items():
        if item and _REFUSED_KEY.fullmatch(str(key)):
            raise _refusal(
                f"a message has the key {key!r}, which is not taken: images belong in the parts of its content, as "
                "type image, and tools in prompt.tools"
            )
    if "role" not in given and "from" in given:
        return _sharegpt_message(given)
    role, content = given.get("role"), given.get("content")
    if not isinstance(role, str):
        raise _refusal("a chat message needs a role and a content")
    # The role is rendered as trusted text, where special tokens count: it has to be a name.
    if not _ROLE.fullmatch(role):
        raise _refusal(f"a message has the role {role[:40]!r}; expected user or the like")
    role = _ROLES.get(role.lower(), role)
    fields = _fields(role, given)
    if content is None and "tool_calls" not in fields:
        raise _refusal(f"a message of role {role} has no content")
    return Message(role, _parts(content), fields)


def _sharegpt_message(given: Mapping[str, Any]) -> Message:
    role, text = _ROLES.get(str(given["from"]).lower()), given.get("value")
    if role is None:
        raise _refusal(f"a message is from {str(given['from'])[:40]!r}; expected one of {', '.join(_ROLES)}")
    if not isinstance(text, str):
        raise _refusal("a message with from needs a value that is text")
    return text_message(role, text)


def _parts(content: Any) -> list[Part]:
    if content is None:
        return []
    if isinstance(content, str):
        if _holds_json_parts(content):
            raise _refusal("the content of a message is a list of parts as JSON text; write them as a list")
        return [[Piece(content, trusted=False)]]
    if not isinstance(content, Sequence) or isinstance(content, bytes):
        raise _refusal(f"the content of a message cannot be a {type(content).__name__}")
    return [_part(part) for part in content]


def _holds_json_parts(content: str) -> bool:
    if not content.lstrip().startswith("[{") or '"type"' not in content:
        return False
    try:
        parts = json.loads(content)
    except (ValueError, RecursionError):
        return False
    return all(isinstance(part, dict) and part.get("type") in (*_TEXT_TYPES, *_IMAGE_TYPES) for part in parts)


def _part(part: Any) -> Part:
    if isinstance(part, str):
        return [Piece(part, trusted=False)]
    if not isinstance(part, Mapping):
        raise _refusal(f"a part of a message cannot be a {type(part).__name__}")
    given = {key: item for key, item in part.items() if item is not None}
    held = [key for key in _IMAGE_KEYS if _holds_something(given.get(key))]
    if _holds_something(given.get("bytes")) or _holds_something(given.get("path")):
        held.append("bytes and path")
    text = given.get("text")
    kind = given.get("type", "text" if "text" in given and not held else "image" if held else None)
    if text and held:
        raise _refusal(f"a part holds both text and an image ({held[0]}): write a part for each")
    if kind in _TEXT_TYPES:
        if not isinstance(text, str) or held:
            raise _refusal(f"a part of type {kind} has no text")
        return [Piece(text, trusted=False)]
    if kind in _IMAGE_TYPES:
        if text:
            raise _refusal(f"a part of type {kind} holds a text: write a part for each")
        return [_image(kind, given, held)]
    if kind == "video":
        return [_video(given, held)]
    raise _refusal(f"a part of a message has type {kind!r}; expected text, image or video")


def _holds_something(content: Any) -> bool:
    """Whether the value of a key holds an image; writers of tables fill keys up that a part does not have."""
    if isinstance(content, Mapping):
        return any(item is not None and item != "" for item in content.values())
    return content is not None and content != ""


def _image(kind: str, part: Mapping[str, Any], held: Sequence[str]) -> MessageImage:
    """The image of a part; without any content, it is one of the row's."""
    if len(held) > 1:
        raise _refusal(f"a part of type {kind} holds its image twice: {', '.join(held)}")
    if held == ["bytes and path"]:
        return MessageImage({"bytes": part.get("bytes"), "path": part.get("path")})
    if held:
        return MessageImage(_unwrap(part[held[0]]))
    if kind != "image":
        raise _refusal(f"a part of type {kind} has no image")
    others = [key for key, item in part.items() if key not in _KEYS_OF_NO_IMAGE and _holds_something(item)]
    if others:
        raise _refusal(f"a part of type image has the key {others[0]!r}, and no image that is known")
    return MessageImage(index=_index(part.get("index")))


def _video(part: Mapping[str, Any], held: Sequence[str]) -> MessageVideo:
    """The video of a part, which is one of the row's."""
    others = [key for key, item in part.items() if key not in ("type", "index") and _holds_something(item)]
    if held or others:
        raise _refusal(
            f"a part of type 'video' has the key {[*held, *others][0]!r}: a video is one of the row's column of videos "
            "(input.video_column), and its part holds nothing else"
        )
    return MessageVideo(_index(part.get("index"), "video"))


def _index(index: Any, kind: str = "image") -> int | None:
    """Which image or video a part is; data frames make floating point numbers of integers beside nulls, NaN of null."""
    if index is None or index != index:
        return None
    is_whole = type(index) is int or (isinstance(index, float) and index.is_integer())
    if not is_whole or index < 0:
        raise _refusal(f"a part of type {kind} has index {str(index)[:40]}; expected a whole number from 0 on")
    return int(index)


def _unwrap(content: Any) -> Any:
    """The image in an OpenAI `{"url": ...}` or an Anthropic `{"type": "base64", "data": ...}`; others as they are."""
    if not isinstance(content, Mapping):
        return content
    given = {key: item for key, item in content.items() if item is not None}
    return given.get("url", given.get("data", dict(content)))


def _fields(role: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """What chat templates read of a message beside role and content, as vLLM's chat gives it to them."""
    fields: dict[str, Any] = {}
    reasoning = given.get("reasoning", given.get("reasoning_content"))
    if role == "assistant" and isinstance(reasoning, str):
        fields["reasoning"] = fields["reasoning_content"] = reasoning
    calls = given.get("tool_calls")
    if calls is not None and not isinstance(calls, list):
        raise _refusal(f"tool_calls cannot be a {type(calls).__name__}; expected a list")
    if role == "assistant" and calls:
        fields["tool_calls"] = [_tool_call(call) for call in calls]
    if role == "tool" and "tool_call_id" in given:
        fields["tool_call_id"] = given["tool_call_id"]
    if isinstance(given.get("name"), str):
        fields["name"] = given["name"]
    return fields


def _tool_call(call: Any) -> dict[str, Any]:
    """A tool call with its arguments as a mapping, which is what templates take; OpenAI writes them as JSON text."""
    function = call.get("function") if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise _refusal("a tool call needs a function with a name")
    arguments = function.get("arguments") or {}
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except (ValueError, RecursionError):
            raise _refusal(f"the arguments of the tool call {function['name'][:40]!r} are not JSON") from None
    if not isinstance(arguments, Mapping):
        raise _refusal(f"the arguments of the tool call {function['name'][:40]!r} are no JSON object")
    return {**call, "function": {**function, "arguments": arguments}}
