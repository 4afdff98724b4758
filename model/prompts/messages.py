"""Chat messages as people write them, brought to one form: OpenAI's, ShareGPT's, and parts with or without types.

What cannot be brought to that form is an error of its row that names the key or type: a message that is answered
without one of its parts would be answered wrongly.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, TypeVar

from run_batch.model.prompts.message_parts import (
    IMAGE_TYPES,
    OWN_KEYS,
    TEXT_TYPES,
    VIDEO_TYPES,
    MessageImage,
    MessageVideo,
    Part,
    parse_part,
    refusal,
)
from run_batch.model.prompts.tokenizer import Piece

Place = TypeVar("Place", MessageImage, MessageVideo)

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
# Names of keys by which messages hold what the model is meant to see, in forms that are not taken here.
_REFUSED_KEY = re.compile(
    r"(.*_)?(images?|imgs?|audios?|videos?|media|files?|attachments?)(_.*)?|tools|function_call", re.IGNORECASE
)


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

    def places(self, kind: type[Place]) -> list[Place]:
        """The images, or the videos, of all parts, in order."""
        return [item for part in self.parts for item in part if isinstance(item, kind)]


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
        raise refusal("the row has no messages")
    if all(map(_is_part, value)):
        return [Message("user", [parse_part(item) for item in value])]
    return [_message(item) for item in value]


def _is_part(item: Any) -> bool:
    """Whether an item of a conversation is a part of a message without a role."""
    if not isinstance(item, Mapping):
        return False
    given = {key for key, value in item.items() if value is not None}
    return not given & {"role", "from"} and bool(given & {"type", "text", *chain(*OWN_KEYS.values())})


def _message(value: Any) -> Message:
    if not isinstance(value, Mapping):
        raise refusal(f"a chat message cannot be a {type(value).__name__}; it needs a role and a content")
    given = {key: item for key, item in value.items() if item is not None}
    for key, item in given.items():
        if item and _REFUSED_KEY.fullmatch(str(key)):
            raise refusal(
                f"a message has the key {key!r}, which is not taken: images and videos belong in the parts of its "
                "content, as type image or video, and tools in prompt.tools"
            )
    if "role" not in given and "from" in given:
        return _sharegpt_message(given)
    role, content = given.get("role"), given.get("content")
    if not isinstance(role, str):
        raise refusal("a chat message needs a role and a content")
    # The role is rendered as trusted text, where special tokens count: it has to be a name.
    if not _ROLE.fullmatch(role):
        raise refusal(f"a message has the role {role[:40]!r}; expected user or the like")
    role = _ROLES.get(role.lower(), role)
    fields = _fields(role, given)
    if content is None and "tool_calls" not in fields:
        raise refusal(f"a message of role {role} has no content")
    return Message(role, _parts(content), fields)


def _sharegpt_message(given: Mapping[str, Any]) -> Message:
    role, text = _ROLES.get(str(given["from"]).lower()), given.get("value")
    if role is None:
        raise refusal(f"a message is from {str(given['from'])[:40]!r}; expected one of {', '.join(_ROLES)}")
    if not isinstance(text, str):
        raise refusal("a message with from needs a value that is text")
    return text_message(role, text)


def _parts(content: Any) -> list[Part]:
    if content is None:
        return []
    if isinstance(content, str):
        if _holds_json_parts(content):
            raise refusal("the content of a message is a list of parts as JSON text; write them as a list")
        return [[Piece(content, trusted=False)]]
    if not isinstance(content, Sequence) or isinstance(content, bytes):
        raise refusal(f"the content of a message cannot be a {type(content).__name__}")
    return [parse_part(part) for part in content]


def _holds_json_parts(content: str) -> bool:
    if not content.lstrip().startswith("[{") or '"type"' not in content:
        return False
    try:
        parts = json.loads(content)
    except (ValueError, RecursionError):
        return False
    return all(
        isinstance(part, dict) and part.get("type") in (*TEXT_TYPES, *IMAGE_TYPES, *VIDEO_TYPES) for part in parts
    )


def _fields(role: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """What chat templates read of a message beside role and content, as vLLM's chat gives it to them."""
    fields: dict[str, Any] = {}
    reasoning = given.get("reasoning", given.get("reasoning_content"))
    if role == "assistant" and isinstance(reasoning, str):
        fields["reasoning"] = fields["reasoning_content"] = reasoning
    calls = given.get("tool_calls")
    if calls is not None and not isinstance(calls, list):
        raise refusal(f"tool_calls cannot be a {type(calls).__name__}; expected a list")
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
        raise refusal("a tool call needs a function with a name")
    arguments = function.get("arguments") or {}
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except (ValueError, RecursionError):
            raise refusal(f"the arguments of the tool call {function['name'][:40]!r} are not JSON") from None
    if not isinstance(arguments, Mapping):
        raise refusal(f"the arguments of the tool call {function['name'][:40]!r} are no JSON object")
    return {**call, "function": {**function, "arguments": arguments}}
