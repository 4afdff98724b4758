"""`run-batch init`: a commented job.toml for an input, from its columns and the kind of the model."""

import json
import os
import tomllib
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from run_batch.io.inputs.sample_images import with_image_column
from run_batch.io.inputs.source import InputError, Source
from run_batch.io.media.allowed_hosts import is_host_entry
from run_batch.io.media.image_column import can_hold_paths, content_of, image_cells, images_in
from run_batch.io.media.inline_images import begins_as_base64_image, is_data_url
from run_batch.jobs.init.input_columns import Columns, find_columns
from run_batch.jobs.job.columns import check_columns
from run_batch.jobs.job.config import JobConfig, parse_config
from run_batch.jobs.job.errors import JobError, RunError, input_failed
from run_batch.jobs.job.open_input import open_source
from run_batch.jobs.job.plan import make_plan
from run_batch.jobs.job.prompt_column import find_prompt_column
from run_batch.jobs.machine.gpus import is_cpu_build
from run_batch.model.checkpoint.hub import snapshot_folder

_MODEL = "Qwen/Qwen2.5-VL-7B-Instruct"
_TEMPLATE_FILES = ("chat_template.jinja", "chat_template.json", "tokenizer_config.json", "config.json")
_LLAVA = ("llava", "llava_next")
# So many first rows tell where images are.
_ROWS_LOOKED_AT = 64


def init_job(path: str, model: str | None, name: str | None, split: str | None, file: Path) -> Columns:
    """Write a job.toml for an input; it may need its model and its question changed, and nothing else.

    Args:
        path: as `input.path`, but relative to the working folder.
        model: as `model.path`, relative like `path`; a well-known one where it is left out.
        name: as `input.name`.
        split: as `input.split`.

    Raises:
        JobError: the input cannot be opened, is empty or makes no prompts; or the file is there already.
        RunError: the input is damaged, or the file cannot be written.
    """
    if file.exists():
        raise JobError(f"{file} is there already; name another file with --output, or remove it")
    named = {key: value for key, value in (("name", name), ("split", split)) if value}
    tables = {
        "input": {"path": _as_in(file, path), **named},
        "model": {"path": _as_in(file, model or _MODEL)},
        "output": {"path": "results"},
    }
    folder = file.absolute().parent
    config = parse_config(tables, folder)
    source = _open(config)
    if {"custom_id", "url", "body"} <= set(source.schema.names):
        config = parse_config({**tables, "input": {**tables["input"], "format": "openai"}}, folder)
        source = _open(config)
    make_plan(config, source)
    # Requests are conversations, whatever the model says of itself: `check` tells where it has no chat template.
    columns = find_columns(config, source, config.prompt.chat or _has_chat_template(config))
    source = with_image_column(source, columns.image or "")
    text = "\n".join(_lines(config, source, columns, model is not None)) + "\n"
    _check(text, source, folder)
    try:
        with open(file, "x", encoding="utf-8") as out:
            out.write(text)
    except OSError as error:
        raise RunError(f"{file} cannot be written: {error.strerror}") from None
    return columns


def _open(config: JobConfig) -> Source:
    """Open the input; what its error says of keys is said of the options here."""
    try:
        return open_source(config)
    except JobError as error:
        hints = {"input.split": "name it with --split", "input.name": "name it with --name", "onfig name": "use --name"}
        hint = next((f" (here: {hint})" for word, hint in hints.items() if word in str(error)), "")
        raise JobError(f"{error}{hint}") from error


def _check(text: str, source: Source, folder: Path) -> None:
    """Check a job.toml as `run-batch check` would.

    Raises:
        JobError: no job can be made of the input.
    """
    config = parse_config(tomllib.loads(text), folder)
    try:
        check_columns(config, source)
        find_prompt_column(config, source)
    except JobError as error:
        raise JobError(f"no job can be made of {config.input.path} as it is: {error}") from error


def _as_in(file: Path, path: str) -> str:
    """A path as a job.toml in another folder has it; what is no path here, such as a URL or a Hub id, as it is."""
    is_glob = "://" not in path and any(sign in path for sign in "*?[")
    is_path = os.path.exists(path) or is_glob
    if os.path.isabs(path) or not is_path or file.absolute().parent == Path.cwd():
        return path
    return os.path.relpath(path, file.absolute().parent)


def _lines(config: JobConfig, source: Source, columns: Columns, has_model: bool) -> Iterator[str]:
    used = {columns.image, columns.video, columns.prompt, columns.id, *columns.carried}
    others = [_shown(name) for name in source.schema.names if name not in used]
    yield f"# {source.num_rows} rows; columns {', '.join(map(_shown, source.schema.names))}."
    yield "# `run-batch try --config` this file shows the first answers, `run-batch keys` what else may be set."
    yield "\n[input]"
    yield f"path = {_text(config.input_paths[0])}"
    if config.input.format:
        yield f"format = {_text(config.input.format)}"
    if config.input.name:
        yield f"name = {_text(config.input.name)}"
    if config.input.split:
        yield f"split = {_text(config.input.split)}"
    note = "" if columns.image or columns.video else "  # no column of images was found: prompts are text only"
    yield f"image_column = {_text(columns.image or '')}{note}"
    if columns.video:
        yield f"video_column = {_text(columns.video)}"
    yield from _media_lines(config, source, columns)
    if columns.prompt:
        yield f"prompt_column = {_text(columns.prompt)}"
    if columns.id:
        yield f"id_column = {_text(columns.id)}"
    else:
        yield '# id_column = "…"  # a column of unique ids; without it a row is FILE:ROW'
    yield from _prompt_lines(config, columns)
    yield "\n[model]"
    yield f"path = {_text(config.model.path)}" + ("" if has_model else "  # a folder, or the id of a model on the Hub")
    yield from _engine_lines()
    yield "\n[sampling]  # fields of vLLM's SamplingParams"
    yield "temperature = 0.0"
    yield "max_tokens = 256"
    yield "\n[output]"
    yield f"path = {_text(config.output.path)}"
    notes = f"  # copied from the input; there are also {', '.join(others)}" if others else "  # copied from the input"
    if all(name == new for name, new in columns.carried.items()):
        yield f"columns = [{', '.join(map(_text, columns.carried))}]{notes}"
    else:
        renamed = ", ".join(f"{_text(name)} = {_text(new)}" for name, new in columns.carried.items())
        yield f"columns = {{ {renamed} }}{notes}"


def _engine_lines() -> Iterator[str]:
    """What vLLM's CPU build needs: by itself it takes nearly all memory of the machine, and compiles for minutes."""
    if not is_cpu_build():
        return
    yield "\n[engine]  # fields of vLLM's EngineArgs; remove these two for a GPU"
    yield "kv_cache_memory_bytes = 1073741824  # 1 GiB; without it, vLLM takes nearly all memory of the machine"
    yield "enforce_eager = true  # compiling the model takes longer than a few rows on a CPU"


def _media_lines(config: JobConfig, source: Source, columns: Columns) -> Iterator[str]:
    """Keys that images and videos behind URLs or paths need, as the first rows have them; for the user to decide."""
    hosts: dict[str, None] = {}
    paths = []
    for text in chain(*(_first_texts(source, column) for column in (columns.image, columns.video))):
        if text.startswith(("http://", "https://")):
            hosts[text.split("/")[2].rpartition("@")[2]] = None
        elif not is_data_url(text) and not begins_as_base64_image(text):
            paths.append(text)
    hosts = {host: None for host in hosts if is_host_entry(host)}
    if hosts:
        yield f"# allowed_hosts = [{', '.join(map(_text, hosts))}]  # of the first rows: nothing is fetched without it"
    missing = [path for path in paths if source.folder is None or not os.path.isfile(source.folder / path)]
    if missing:
        yield (
            f'# media_root = "…"  # the folder that paths are inside of, if it is not that of the input: '
            f"{_shown(missing[0][:100])}"
        )


def _first_texts(source: Source, image: str | None) -> Iterator[str]:
    if image is None or not can_hold_paths(source.schema.field(image).type):
        return
    cursor = source.cursor([image], _ROWS_LOOKED_AT)
    try:
        for batch in cursor.read(0, min(_ROWS_LOOKED_AT, source.num_rows)):
            for cell in image_cells(batch.records.column(0)):
                yield from (text for item in images_in(cell) if isinstance(text := content_of(item), str))
    except InputError as error:
        raise input_failed(error) from error
    finally:
        cursor.close()


def _prompt_lines(config: JobConfig, columns: Columns) -> Iterator[str]:
    yield "\n[prompt]"
    seen = "video" if columns.video else "image"
    asked = "{prompt}" if columns.prompt else f"Describe this {seen}."
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
    return "" if columns.prompt else "  # asked of every row; {column} inserts a column"


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
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _shown(name: str) -> str:
    """A name as it may stand in a comment."""
    return name if name.isprintable() else _text(name)
