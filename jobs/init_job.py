"""`run-batch init`: a commented job.toml for an input, from its columns and the kind of the model."""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from run_batch.io.arrow_types import is_bytes, is_list, is_text
from run_batch.io.inputs.source import Source
from run_batch.io.media.image_column import can_hold_images
from run_batch.jobs.job.config import JobConfig, parse_config
from run_batch.jobs.job.errors import JobError, RunError
from run_batch.jobs.job.open_input import open_source
from run_batch.jobs.job.plan import make_plan
from run_batch.jobs.job.row_ids import check_ids
from run_batch.model.checkpoint.hub import snapshot_folder

_MODEL = "Qwen/Qwen2.5-VL-7B-Instruct"
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
_CONVERSATIONS = ("messages", "conversations", "conversation")
_PROMPTS = ("prompt", "question", "instruction", "query", "input", "text", "problem")
_IDS = ("id", "uid", "uuid", "row_id", "image_id", "question_id", "custom_id", "key", "__key__", "index")
_ANSWERS = ("answer", "caption", "label", "answers")
_TEMPLATE_FILES = ("chat_template.jinja", "chat_template.json", "tokenizer_config.json", "config.json")
_LLAVA = ("llava", "llava_next")
_ASKED = "Describe this image."


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns of an input, by what they most likely are; None for none.

    Attributes:
        id: holds a value of its own in each row.
        prompt: text, or conversations if `is_conversation`.
    """

    image: str | None
    prompt: str | None
    is_conversation: bool
    id: str | None
    carried: Sequence[str]


def init_job(path: str, model: str | None, split: str | None, file: Path) -> Columns:
    """Write a job.toml for an input; it may need its model and its question changed, and nothing else.

    Args:
        path: as `input.path`, but relative to the working folder.
        model: as `model.path`, relative like `path`; a well-known one where it is left out.
        split: as `input.split`.

    Raises:
        JobError: the input cannot be opened, or the file is there already.
        RunError: the input is damaged, or the file cannot be written.
    """
    if file.exists():
        raise JobError(f"{file} is there already; name another file with --output, or remove it")
    named = {"path": _as_in(file, path), **({"split": split} if split else {})}
    tables = {"input": named, "model": {"path": _as_in(file, model or _MODEL)}, "output": {"path": "results"}}
    config = parse_config(tables, file.absolute().parent)
    source = open_source(config)
    if {"custom_id", "url", "body"} <= set(source.schema.names):
        config = parse_config({**tables, "input": {**named, "format": "openai"}}, file.absolute().parent)
        source = open_source(config)
    columns = find_columns(config, source)
    text = "\n".join(_lines(config, source, columns, model is not None)) + "\n"
    try:
        with open(file, "x", encoding="utf-8") as out:
            out.write(text)
    except OSError as error:
        raise RunError(f"{file} cannot be written: {error.strerror}") from None
    return columns


def _as_in(file: Path, path: str) -> str:
    """A path as a job.toml in another folder has it; what is no path here, such as a URL or a Hub id, as it is."""
    if os.path.isabs(path) or not os.path.exists(path) or file.absolute().parent == Path.cwd():
        return path
    return os.path.relpath(path, file.absolute().parent)


def find_columns(config: JobConfig, source: Source) -> Columns:
    """Tell from names and types what the columns of an input are."""
    schema = source.schema
    image = _named(schema, _IMAGES, can_hold_images) or _first(schema, _holds_encoded_images)
    conversation = _named(schema, _CONVERSATIONS, lambda kind: is_list(kind) or is_text(kind))
    prompt = conversation or _named(schema, _PROMPTS, is_text)
    carried = [name for name in (prompt, _named(schema, _ANSWERS, lambda _: True)) if name and name != conversation]
    return Columns(image, prompt, conversation is not None, _unique_ids(config, source), carried)


def _named(schema: pa.Schema, names: Sequence[str], fits: Callable[[pa.DataType], bool]) -> str | None:
    """The first column that has one of these names, whatever its case, and a type that fits."""
    by_name = {field.name.lower(): field for field in schema}
    found = (by_name[name] for name in names if name in by_name)
    return next((field.name for field in found if fits(field.type)), None)


def _first(schema: pa.Schema, fits: Callable[[pa.DataType], bool]) -> str | None:
    return next((field.name for field in schema if fits(field.type)), None)


def _holds_encoded_images(kind: pa.DataType) -> bool:
    """Whether a column is one of images whatever its name: bytes, or a struct of bytes, as `datasets` writes them."""
    if isinstance(kind, pa.BaseExtensionType):
        kind = kind.storage_type
    kind = kind.value_type if is_list(kind) else kind
    return is_bytes(kind) or (pa.types.is_struct(kind) and can_hold_images(kind))


def _unique_ids(config: JobConfig, source: Source) -> str | None:
    """A column of ids by its name, if every row has one of its own."""
    name = _named(source.schema, _IDS, lambda kind: is_text(kind) or pa.types.is_integer(kind))
    if name is None:
        return None
    with_ids = config.model_copy(update={"input": config.input.model_copy(update={"id_column": name})})
    try:
        check_ids(with_ids, source, make_plan(with_ids, source))
    except JobError:
        return None
    return name


def _lines(config: JobConfig, source: Source, columns: Columns, has_model: bool) -> Iterator[str]:
    used = {columns.image, columns.prompt, columns.id, *columns.carried}
    others = [name for name in source.schema.names if name not in used]
    yield f"# {source.num_rows} rows; columns {', '.join(source.schema.names)}."
    yield "# `run-batch try --config` this file shows the first answers, `run-batch keys` what else may be set."
    yield "\n[input]"
    yield f"path = {_text(config.input_paths[0])}"
    if config.input.format:
        yield f"format = {_text(config.input.format)}"
    if config.input.split:
        yield f"split = {_text(config.input.split)}"
    note = "" if columns.image else "  # no column of images was found: prompts are text only"
    yield f"image_column = {_text(columns.image or '')}{note}"
    if columns.prompt:
        yield f"prompt_column = {_text(columns.prompt)}"
    if columns.id:
        yield f"id_column = {_text(columns.id)}"
    else:
        yield '# id_column = "…"  # a column of unique ids; without it a row is FILE:ROW'
    yield from _prompt_lines(config, columns)
    yield "\n[model]"
    yield f"path = {_text(config.model.path)}" + ("" if has_model else "  # a folder, or the id of a model on the Hub")
    yield "\n[sampling]  # fields of vLLM's SamplingParams"
    yield "temperature = 0.0"
    yield "max_tokens = 256"
    yield "\n[output]"
    yield f"path = {_text(config.output.path)}"
    notes = f"  # copied from the input; there are also {', '.join(others)}" if others else "  # copied from the input"
    yield f"columns = [{', '.join(map(_text, columns.carried))}]{notes}"


def _prompt_lines(config: JobConfig, columns: Columns) -> Iterator[str]:
    yield "\n[prompt]"
    asked = "{prompt}" if columns.prompt else _ASKED
    if columns.is_conversation or _has_chat_template(config):
        yield "chat = true  # the model's chat template adds the image placeholder and the special tokens"
        if not columns.is_conversation:
            yield f"template = {_text(asked)}  # the user's message" + _also(columns)
    elif _model_type(config) in _LLAVA:
        image = "<image>\n" if columns.image else ""
        yield f"template = {_text(f'USER: {image}{asked} ASSISTANT:')}" + _also(columns)
    else:
        yield "# The model has no chat template: write its image placeholder where the image belongs."
        yield f"template = {_text(asked)}" + _also(columns)


def _also(columns: Columns) -> str:
    return "" if columns.prompt else "  # asked of every image; {column} inserts a column"


def _has_chat_template(config: JobConfig) -> bool:
    """Whether the checkpoint brings a chat template; assumed of a model on the Hub that cannot be reached."""
    folder = snapshot_folder(config.resolve(config.model.path), None, _TEMPLATE_FILES)
    if folder is None:
        return config.is_on_hub(config.model.path)
    if any((folder / name).is_file() for name in _TEMPLATE_FILES[:2]):
        return True
    return "chat_template" in _json(folder / "tokenizer_config.json")


def _model_type(config: JobConfig) -> str:
    folder = snapshot_folder(config.resolve(config.model.path), None, ("config.json",))
    return str(_json(folder / "config.json").get("model_type", "")) if folder is not None else ""


def _json(file: Path) -> dict[str, object]:
    try:
        found = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _text(value: str) -> str:
    """Text as TOML has it."""
    return json.dumps(value, ensure_ascii=False)
