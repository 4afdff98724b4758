"""What the columns of an input most likely are, told by their names and types."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from run_batch.io.arrow_types import is_bytes, is_list, is_text
from run_batch.io.inputs.image_names import is_image_name
from run_batch.io.inputs.sample_images import whole_column
from run_batch.io.inputs.source import Source
from run_batch.io.media.image_column import can_hold_images, can_hold_videos
from run_batch.io.media.inline_images import is_data_url
from run_batch.jobs.job.carried_columns import check_carried
from run_batch.jobs.job.config import JobConfig
from run_batch.jobs.job.config_tables import OutputTable
from run_batch.jobs.job.config_values import ALL_COLUMNS
from run_batch.jobs.job.errors import JobError
from run_batch.jobs.job.field_format import can_be_written
from run_batch.jobs.job.plan import make_plan
from run_batch.jobs.job.prompt_column import find_prompt_column
from run_batch.jobs.job.result_columns import result_columns
from run_batch.jobs.job.row_ids import check_ids

# Names that columns of their kind often have, the likeliest first.
_IMAGES = (
    "image",
    "images",
    "img",
    "photo",
    "picture",
    "jpg",
    "png",
    "image_path",
    "image_url",
    "file_name",
    "path",
    "url",
)
_VIDEOS = ("video", "videos", "mp4", "webm", "clip", "video_path", "video_url")
_VIDEO_ENDINGS = (".mp4", ".webm", ".mkv", ".mov", ".avi", ".m4v")
_CONVERSATIONS = ("messages", "conversations", "conversation")
_PROMPTS = ("prompt", "question", "instruction", "query", "input", "text", "problem")
_IDS = ("id", "uid", "uuid", "row_id", "image_id", "question_id", "custom_id", "key", "__key__", "index")
# Whose texts are looked at.
_FIRST_ROWS = 16
_ANSWERS = ("answer", "caption", "label", "answers")


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns of an input, by what they most likely are; None for none.

    Attributes:
        video: column of videos.
        id: holds a value of its own in each row.
        prompt: text, or conversations if `is_conversation`.
        carried: names in the results, by column.
    """

    image: str | None
    video: str | None
    prompt: str | None
    is_conversation: bool
    id: str | None
    carried: Mapping[str, str]


def find_columns(config: JobConfig, source: Source, can_chat: bool) -> Columns:
    """Tell from names and types what the columns of an input are.

    Args:
        can_chat: whether the model takes conversations.
    """
    schema = pa.schema([field for field in source.schema if field.name and field.name not in source.unusable])
    video = _video_column(source, schema)
    schema = pa.schema([field for field in schema if field.name != video])
    image = _named(schema, _IMAGES, can_hold_images) or _first(schema, _holds_encoded_images)
    image = image or _names(source, schema, _is_image_text)
    unique = _unique_ids(config, source, schema)
    conversation = _named(schema, _CONVERSATIONS, lambda kind: is_list(kind) or _holds_text(kind))
    if conversation is not None and not (can_chat and _holds_conversations(config, source, conversation)):
        conversation = None
    prompt = conversation or _named(schema, _PROMPTS, _holds_text)
    if prompt is None and image is None and video is None:
        others = pa.schema([field for field in schema if field.name != unique]) if len(schema) > 1 else schema
        prompt = _first(others, _holds_text) or _first(others, can_be_written)
    wanted = [name for name in (prompt, _named(schema, _ANSWERS, lambda _: True)) if name and name != conversation]
    carried = _carried(list(dict.fromkeys(wanted)), schema, result_columns(config))
    image = None if image is None else whole_column(source.schema, image)
    return Columns(image, video, prompt, conversation is not None, unique, carried)


def _holds_conversations(config: JobConfig, source: Source, column: str) -> bool:
    """Whether a column can be taken for conversations, or for the words of a user."""
    tables: dict[str, Any] = {
        "input": config.input.model_copy(update={"prompt_column": column, "image_column": ""}),
        "prompt": config.prompt.model_copy(update={"chat": True}),
    }
    try:
        find_prompt_column(config.model_copy(update=tables), source)
    except JobError:
        return False
    return True


def _carried(columns: Sequence[str], schema: pa.Schema, taken: Sequence[str]) -> dict[str, str]:
    """Those of some columns that results can carry, each with a name that no other has there."""
    carried: dict[str, str] = {}
    for column in columns:
        if column == ALL_COLUMNS:  # has no way to be meant alone
            continue
        for name in (column, f"input_{column}"):
            output = OutputTable(path="results", columns={**carried, column: name})
            try:
                check_carried(output, schema, taken)
            except JobError:
                continue
            carried[column] = name
            break
    return carried


def _named(schema: pa.Schema, names: Sequence[str], fits: Callable[[pa.DataType], bool]) -> str | None:
    """The first column that has one of these names, whatever its case, and a type that fits."""
    by_name = {field.name.lower(): field for field in schema}
    found = (by_name[name] for name in names if name in by_name)
    return next((field.name for field in found if fits(field.type)), None)


def _first(schema: pa.Schema, fits: Callable[[pa.DataType], bool]) -> str | None:
    return next((field.name for field in schema if fits(field.type)), None)


def _holds_text(kind: pa.DataType) -> bool:
    return is_text(kind.value_type if pa.types.is_dictionary(kind) else kind)


def _video_column(source: Source, schema: pa.Schema) -> str | None:
    """The column of videos, by its name and its type, or by the names of files that it holds."""
    named = _named(schema, _VIDEOS, lambda kind: can_hold_videos(kind) and not _holds_text(kind))
    return named or _names(source, schema, lambda text: text.lower().endswith(_VIDEO_ENDINGS))


def _is_image_text(text: str) -> bool:
    return is_image_name(text) or is_data_url(text)


def _names(source: Source, schema: pa.Schema, fits: Callable[[str], bool]) -> str | None:
    """The first column of text whose first values, without what follows a `?`, all fit."""
    columns = [field.name for field in schema if _holds_text(field.type)]
    rows = range(min(_FIRST_ROWS, source.num_rows))
    cursor = source.cursor(columns, _FIRST_ROWS)
    batches = [batch.records for batch in cursor.read(rows.start, rows.stop)] if columns else []
    cursor.close()
    return next((name for name in columns if _all_fit([batch.column(name) for batch in batches], fits)), None)


def _all_fit(cells: Sequence[pa.Array], fits: Callable[[str], bool]) -> bool:
    try:
        values = [value for array in cells for value in array.to_pylist() if value]
    except UnicodeDecodeError:
        return False
    return bool(values) and all(fits(value.partition("?")[0]) for value in values)


def _holds_encoded_images(kind: pa.DataType) -> bool:
    """Whether a column is one of images whatever its name: bytes, or a struct of bytes, as `datasets` writes them."""
    if isinstance(kind, pa.BaseExtensionType):
        kind = kind.storage_type
    kind = kind.value_type if is_list(kind) else kind
    return is_bytes(kind) or (pa.types.is_struct(kind) and can_hold_images(kind))


def _unique_ids(config: JobConfig, source: Source, schema: pa.Schema) -> str | None:
    """A column of ids by its name, if every row has one of its own."""
    name = _named(schema, _IDS, lambda kind: _holds_text(kind) or pa.types.is_integer(kind))
    if name is None:
        return None
    with_ids = config.model_copy(update={"input": config.input.model_copy(update={"id_column": name})})
    try:
        check_ids(with_ids, source, make_plan(with_ids, source))
    except JobError:
        return None
    return name
