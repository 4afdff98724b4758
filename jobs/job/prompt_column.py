"""What the prompt column of a chat job holds: texts, or conversations. Decided once, for the whole column.

Were it decided row by row, a user's text that reads like a conversation would become one, with a system message of the
user's own.
"""

import json
import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

import pyarrow as pa

from run_batch.io.arrow_types import is_list, is_text
from run_batch.io.inputs.source import InputError, Source
from run_batch.jobs.job.config import JobConfig
from run_batch.jobs.job.errors import JobError, input_failed

# Of texts, those of the first rows tell whether the column holds conversations as JSON.
_ROWS_LOOKED_AT = 256
# Text that is no JSON, but was a conversation once: as Python or NumPy writes it, or cut off.
_OPENING = ("[", "{", "(", '"', "array(")
_ROLES = ("user", "human", "system", "developer", "assistant", "gpt", "model", "tool")
_ROLE_IN_TEXT = re.compile(rf"""["'](role|from)["']\s*:\s*["']({"|".join(_ROLES)})["']""")
_CHARACTERS_LOOKED_AT = 4000
# Of parts of messages: their types, and the keys of those without a type.
_PART_TYPES = ("text", "image", "video", "image_url", "video_url", "input_text", "input_image")
_PART_KEYS = {"text", "image", "image_url", "video", "video_url"}
# How deep conversations are looked for in other JSON, such as lines of batch files.
_DEPTH = 3
_ACCEPTED = (
    "text, messages as a list of structs of role and content (or of from and value, as in ShareGPT's data), or such a "
    "list as JSON text"
)


class PromptColumn(StrEnum):
    """What a prompt column holds; the values say so to people."""

    TEXTS = "texts"
    CONVERSATIONS = "conversations"
    JSON_CONVERSATIONS = "conversations as JSON text"


def is_message(config: JobConfig) -> bool:
    """Whether the prompt column alone is what a chat is about: its text is the message, or it holds conversations."""
    template = config.prompt.template.strip()
    return config.prompt.chat and template in ("{prompt}", f"{{{config.input.prompt_column}}}")


def find_prompt_column(config: JobConfig, source: Source) -> PromptColumn:
    """Decide what the prompt column holds.

    With a template of their own, rows are texts: `Is this polite? {prompt}` may well ask of a conversation.

    Raises:
        JobError: the column can hold neither texts nor conversations.
    """
    column = config.input.prompt_column
    if not is_message(config):
        return PromptColumn.TEXTS
    kind = source.schema.field(column).type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if is_text(kind):
        return _of_texts(column, source)
    if not (pa.types.is_struct(kind) or is_list(kind) or pa.types.is_map(kind)):
        return PromptColumn.TEXTS
    if is_list(kind) and pa.types.is_struct(kind.value_type):
        fields = {field.name for field in kind.value_type}
        if _is_message(dict.fromkeys(fields)) or "type" in fields or fields <= _PART_KEYS:
            return PromptColumn.CONVERSATIONS
    raise JobError(f"input.prompt_column: column {column} is {kind}; prompt.chat = true takes {_ACCEPTED}")


def reads_like_messages(text: str) -> bool:
    """Whether a text is a conversation as JSON, or nearly so: as Python writes it, cut off, or inside other JSON."""
    text = text.lstrip("\ufeff \t\r\n")
    if not text.startswith(_OPENING):
        return False
    try:
        return _holds_conversation(json.loads(text), _DEPTH)
    except (ValueError, RecursionError):
        return _ROLE_IN_TEXT.search(text[:_CHARACTERS_LOOKED_AT]) is not None


def parse_json_messages(text: str) -> list[Any]:
    """The messages of a conversation as JSON text: a list of them, or an object that holds such a list.

    Raises:
        UnicodeEncodeError: it holds text that is no UTF-8.
        ValueError: the text is none; the message says what is wrong.
    """
    try:
        value = json.loads(text.lstrip("\ufeff"))
    except RecursionError:
        raise ValueError("the messages are nested too deeply") from None
    except ValueError as error:
        raise ValueError(f"the messages are not JSON: {error}") from None
    if isinstance(value, Mapping):
        names = [name for name in ("messages", "conversations") if name in value]
        others = [name for name in value if name not in names]
        if len(names) != 1 or others:
            raise ValueError(
                "expected a list of messages, or an object with messages alone; found an object of "
                f"{', '.join(map(str, value)) or 'nothing'}"
            )
        value = value[names[0]]
    if not isinstance(value, list):
        raise ValueError(f"expected a list of messages as JSON, found a {type(value).__name__}")
    if "\\u" in text:  # escapes may be halves of surrogate pairs
        json.dumps(value, ensure_ascii=False).encode()
    return value


def _of_texts(column: str, source: Source) -> PromptColumn:
    try:
        batch = next(source.cursor([column], _ROWS_LOOKED_AT).read(0, min(_ROWS_LOOKED_AT, source.num_rows)), None)
    except InputError as error:
        raise input_failed(error) from error
    texts = [] if batch is None else _texts_in(batch.records.column(0))
    conversations = sum(map(reads_like_messages, texts))
    return PromptColumn.JSON_CONVERSATIONS if 2 * conversations > len(texts) else PromptColumn.TEXTS


def _texts_in(column: pa.Array) -> list[str]:
    """The texts that are there; one that is not UTF-8 says nothing of the others."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    values = column.cast(pa.large_string()).cast(pa.large_binary()).to_pylist()
    return [value.decode(errors="replace") for value in values if value is not None]


def _holds_conversation(value: Any, depth: int) -> bool:
    """Whether JSON is a conversation, or holds one."""
    if isinstance(value, str):
        return depth == _DEPTH and reads_like_messages(value)
    if isinstance(value, Mapping):
        return _is_message(value) or (depth > 0 and any(_holds_conversation(v, depth - 1) for v in value.values()))
    if not isinstance(value, list):
        return False
    if not value:
        return depth == _DEPTH
    return all(map(_is_message, value)) or all(map(_is_part, value)) or all(map(_is_pair, value))


def _is_message(value: Any) -> bool:
    """Whether a value is a message in one of the forms that `parse_messages` takes."""
    if not isinstance(value, Mapping):
        return False
    return any(form <= set(value) for form in ({"role", "content"}, {"role", "tool_calls"}, {"from", "value"}))


def _is_part(value: Any) -> bool:
    """Whether a value is a part of a message."""
    if not isinstance(value, Mapping):
        return False
    return value.get("type") in _PART_TYPES or (bool(value) and set(value) <= _PART_KEYS)


def _is_pair(value: Any) -> bool:
    """Whether a value is a role with what it says, which is not taken."""
    return isinstance(value, list) and len(value) == 2 and value[0] in _ROLES
