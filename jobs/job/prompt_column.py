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
from run_batch.jobs.job.errors import JobError

# Of texts, those of the first rows tell whether the column holds conversations as JSON.
_ROWS_LOOKED_AT = 256
_LOOKS_LIKE_MESSAGES = re.compile(
    r"""\s*(\[\s*)?\{\s*["'](role|content|from|value|type|messages|conversations)["']\s*:"""
)
_ACCEPTED = (
    "text, messages as a list of structs of role and content (or of from and value, as in ShareGPT's data), or such a "
    "list as JSON text"
)


class PromptColumn(StrEnum):
    """What a prompt column holds; the values say so to people."""

    TEXTS = "texts"
    CONVERSATIONS = "conversations"
    JSON_CONVERSATIONS = "conversations as JSON text"


def find_prompt_column(config: JobConfig, source: Source) -> PromptColumn:
    """Decide what the prompt column holds.

    With a template of their own, rows are texts: `Is this polite? {prompt}` may well ask of a conversation.

    Raises:
        JobError: the column can hold neither texts nor conversations.
    """
    column = config.input.prompt_column
    if not config.prompt.chat or config.prompt.template != "{prompt}":
        return PromptColumn.TEXTS
    kind = source.schema.field(column).type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if is_text(kind):
        return _of_texts(column, source)
    if not (pa.types.is_struct(kind) or is_list(kind) or pa.types.is_map(kind)):
        return PromptColumn.TEXTS
    if is_list(kind) and pa.types.is_struct(kind.value_type) and _is_message({f.name: "" for f in kind.value_type}):
        return PromptColumn.CONVERSATIONS
    raise JobError(f"input.prompt_column: column {column} is {kind}; prompt.chat = true takes {_ACCEPTED}")


def reads_like_messages(text: str) -> bool:
    """Whether a text is a conversation as JSON, or nearly so: as Python writes it, or truncated."""
    if not text.lstrip().startswith(("[", "{")):
        return False
    if _LOOKS_LIKE_MESSAGES.match(text):
        return True
    try:
        return _is_conversation(json.loads(text))
    except (ValueError, RecursionError):
        return False


def parse_json_messages(text: str) -> list[Any]:
    """The messages of a conversation as JSON text: a list of them, or an object that holds such a list.

    Raises:
        ValueError: the text is none; the message says what is wrong.
    """
    try:
        value = json.loads(text)
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
    return value


def _of_texts(column: str, source: Source) -> PromptColumn:
    try:
        batch = next(source.read(0, min(_ROWS_LOOKED_AT, source.num_rows), [column], _ROWS_LOOKED_AT), None)
        values = [] if batch is None else batch.records.column(0).to_pylist()
    except UnicodeDecodeError:
        values = []
    except InputError as error:
        raise JobError(str(error)) from None
    texts = [value for value in values if value is not None]
    conversations = sum(map(reads_like_messages, texts))
    return PromptColumn.JSON_CONVERSATIONS if 2 * conversations > len(texts) else PromptColumn.TEXTS


def _is_conversation(value: Any) -> bool:
    if isinstance(value, Mapping):
        value = next((value[name] for name in ("messages", "conversations") if name in value), [value])
    return isinstance(value, list) and bool(value) and all(map(_is_message, value))


def _is_message(value: Any) -> bool:
    """Whether a value is a message in one of the forms that `parse_messages` takes, or a part of one."""
    if not isinstance(value, Mapping):
        return False
    forms = ({"role", "content"}, {"role", "tool_calls"}, {"from", "value"}, {"type", "text"}, {"type", "image_url"})
    return any(form <= set(value) for form in forms)
