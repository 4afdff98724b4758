"""job.toml: every key with its type, default and meaning, declared once.

Help texts, checks, the resume identity and the resolved configuration are all derived from these declarations.
"""

import dataclasses
import difflib
import os
import re
import tomllib
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field
from pathlib import Path
from typing import Any

from run_batch.io.media.allowed_hosts import is_host_entry
from run_batch.jobs.job.errors import JobError

_HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")


def key(
    meaning: str,
    default: Any = MISSING,
    *,
    result: bool = True,
    check: Callable[[Any], str | None] | None = None,
) -> Any:
    """Declare one key of a table.

    Args:
        meaning: one line for people.
        default: value where job.toml does not name the key; without one the key is required.
        result: whether another value can give other results, and so makes it another job.
        check: gives what is accepted, for a value of the right type that is not; else None.
    """
    metadata = {"meaning": meaning, "result": result, "check": check}
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def at_least(low: int) -> Callable[[Any], str | None]:
    return lambda value: None if value >= low else f"a number from {low} on"


def _path(value: str) -> str | None:
    if not value or "\0" in value:
        return "a path, neither empty nor with a NUL character"
    parts = [] if "://" in value else value.encode().split(b"/")
    if len(value) > 4000 or any(len(part) > 255 for part in parts):
        return "a path that a file system can take: 255 bytes a name, 4000 characters in all"
    return None


def _hosts(values: list[str]) -> str | None:
    return None if all(map(is_host_entry, values)) else 'host names such as "images.example.org" or "localhost:8000"'


def one_of(*accepted: str) -> Callable[[Any], str | None]:
    return lambda value: None if value in accepted else " or ".join(map(repr, accepted))


@dataclass(frozen=True, slots=True)
class InputTable:
    path: str = key(
        "a Parquet file, folder or glob, a folder written by datasets.save_to_disk, a Hub id, or a URL", check=_path
    )
    format: str | None = key("parquet or hf; inferred when left out", None, check=one_of("parquet", "hf"))
    split: str = key("split of a Hugging Face data set", "train")
    name: str | None = key("configuration of a data set on the Hub", None)
    image_column: str = key('column of images; "" for a text-only job', "image")
    prompt_column: str = key("column of prompts: text, or chat messages", "prompt")
    id_column: str | None = key("column of unique row ids; FILE:ROW without it", None)
    limit: int | None = key("only the first N rows", None, check=at_least(1))
    media_root: str | None = key("folder that image paths are inside of; the input's own without it", None, check=_path)
    allowed_hosts: list[str] = key(
        "hosts that images may be fetched from by http and https: HOST or HOST:PORT", [], result=False, check=_hosts
    )
    allow_private_hosts: bool = key(
        "let input.allowed_hosts lead to private, loopback and other addresses that are not public", False, result=False
    )
    sampling_column: str | None = key("column of sampling settings of single rows: struct or JSON text", None)


@dataclass(frozen=True, slots=True)
class PromptTable:
    template: str = key("text with {prompt}, {other_column} and the model's image placeholder", "{prompt}")
    chat: bool = key("use the tokenizer's chat template instead of prompt.template", False)
    system: str | None = key("system message, with prompt.chat", None)


@dataclass(frozen=True, slots=True)
class ModelTable:
    path: str = key("model folder or Hub id", check=_path)
    architecture: str | None = key("name of a registered model class; the checkpoint's own without it", None)
    plugins: list[str] = key("modules that register models, imported in every process", [])
    trust_remote_code: bool = key("let the checkpoint run Python code of its own", False)


@dataclass(frozen=True, slots=True)
class PreprocessTable:
    workers: int | None = key(
        "worker processes; from the cores this process may use", None, result=False, check=at_least(1)
    )
    scaled_jpeg_decoding: bool = key(
        "decode JPEGs much larger than the model's input at 1/2, 1/4 or 1/8 of their size: faster, not to the last bit",
        False,
    )


@dataclass(frozen=True, slots=True)
class OutputTable:
    path: str = key("folder for this job's results", result=False, check=_path)
    rows_per_shard: int = key("rows of one output shard", 1000, check=at_least(1))
    columns: list[str] = key("input columns to carry over", [])


@dataclass(frozen=True, slots=True)
class ErrorsTable:
    max_fraction: float = key(
        "share of failed rows above which the job ends with exit code 3",
        0.1,
        result=False,
        check=lambda value: None if 0 <= value <= 1 else "a number from 0 to 1",
    )
    step_seconds: float = key(
        "an engine whose step takes longer counts as dead; 0 for no limit", 600.0, result=False, check=at_least(0)
    )
    expected_column: str | None = key("column with the text expected of each row; other texts count as failed", None)


@dataclass(frozen=True, slots=True)
class JobConfig:
    """A job, checked as far as job.toml alone allows.

    Attributes:
        folder: the folder of job.toml, which relative paths start from.
        engine: fields of vLLM's EngineArgs, checked against vLLM later.
        sampling: fields of vLLM's SamplingParams, checked against vLLM later.
        slurm: options of `run-batch submit`, checked there and by `run-batch check`.
    """

    folder: Path
    input: InputTable
    prompt: PromptTable
    model: ModelTable
    output: OutputTable
    engine: dict[str, Any] = field(default_factory=dict)
    sampling: dict[str, Any] = field(default_factory=dict)
    slurm: dict[str, Any] = field(default_factory=dict)
    preprocess: PreprocessTable = field(default_factory=PreprocessTable)
    errors: ErrorsTable = field(default_factory=ErrorsTable)

    @property
    def output_folder(self) -> Path:
        return Path(os.path.normpath(self.folder / os.path.expanduser(self.output.path)))

    def resolve(self, path: str) -> str:
        """A path of job.toml as an absolute one; a URL, or an id that names nothing here, as it is."""
        local = self.folder / os.path.expanduser(path)
        # `org/name` is a Hub id, unless `org` is a folder here: then a name in it has been mistyped.
        names_nothing = _HUB_ID.fullmatch(path) and not local.parent.exists()
        return path if "://" in path or names_nothing else os.path.normpath(local)


TABLES: Mapping[str, type] = {
    "input": InputTable,
    "prompt": PromptTable,
    "model": ModelTable,
    "preprocess": PreprocessTable,
    "output": OutputTable,
    "errors": ErrorsTable,
}
FREE_TABLES = ("engine", "sampling", "slurm")

# Fields of EngineArgs that change how fast, where and with how much memory rows are generated, not what.
_ENGINE_PLACEMENT = {
    "max_num_seqs",
    "max_num_batched_tokens",
    "gpu_memory_utilization",
    "kv_cache_memory_bytes",
    "tensor_parallel_size",
    "pipeline_parallel_size",
    "data_parallel_size",
    "distributed_executor_backend",
    "enforce_eager",
    "enable_prefix_caching",
    "download_dir",
    "compilation_config",
    "max_parallel_loading_workers",
    "hf_token",
}


def load_config(path: Path, overrides: tuple[str, ...] = ()) -> JobConfig:
    """Read job.toml.

    Args:
        overrides: `table.key=value`, value in TOML or bare text; they win over the file.

    Raises:
        JobError: the file cannot be read, or a key does not hold.
    """
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise JobError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise JobError(f"{path} cannot be read: {error}") from None
    except tomllib.TOMLDecodeError as error:
        raise JobError(f"{path} is not TOML: {error}") from None
    for override in overrides:
        _apply_override(tables, override)
    return parse_config(tables, path.resolve().parent)


def parse_config(tables: Mapping[str, Any], folder: Path) -> JobConfig:
    """Check the tables of a job.toml that lies in `folder`.

    Raises:
        JobError: unknown table or key, wrong type, missing key, contradiction.
    """
    for name, table in tables.items():
        if name not in TABLES and name not in FREE_TABLES:
            raise JobError(f"unknown table [{name}]{did_you_mean(name, [*TABLES, *FREE_TABLES])}")
        if not isinstance(table, dict):
            raise JobError(f"{name} must be a table: write [{name}] and its keys below")
    parsed: dict[str, Any] = {name: _parse_table(name, cls, tables.get(name, {})) for name, cls in TABLES.items()}
    engine, sampling, slurm = (dict(tables.get(name, {})) for name in FREE_TABLES)
    config = JobConfig(folder=folder, engine=engine, sampling=sampling, slurm=slurm, **parsed)
    _check_contradictions(config, tables)
    return config


def _parse_table(name: str, cls: type, values: Mapping[str, Any]) -> Any:
    fields = {f.name: f for f in dataclasses.fields(cls)}
    hints = typing.get_type_hints(cls)
    for found in values:
        if found not in fields:
            elsewhere = [
                f"{t}.{found}" for t, other in TABLES.items() if found in {f.name for f in dataclasses.fields(other)}
            ]
            hint = f"; did you mean {elsewhere[0]}?" if elsewhere else did_you_mean(found, fields, f"{name}.")
            raise JobError(f"unknown key {name}.{found}{hint}")
    for f in fields.values():
        full = f"{name}.{f.name}"
        if f.name not in values:
            if f.default is MISSING and f.default_factory is MISSING:
                raise JobError(f"{full} is required: {f.metadata['meaning']}")
            continue
        value, hint = values[f.name], hints[f.name]
        if not _has_type(value, hint):
            raise JobError(f"{full} = {value!r}: expected {_type_name(hint)} ({f.metadata['meaning']})")
        problem = f.metadata["check"](value) if f.metadata["check"] else None
        if problem:
            raise JobError(f"{full} = {value!r}: expected {problem}")
    return cls(**values)


def _has_type(value: Any, hint: Any) -> bool:
    if isinstance(hint, types.UnionType):
        return any(_has_type(value, option) for option in typing.get_args(hint) if option is not type(None))
    if typing.get_origin(hint) is list:
        return isinstance(value, list) and all(_has_type(v, typing.get_args(hint)[0]) for v in value)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint)


def _type_name(hint: Any) -> str:
    if isinstance(hint, types.UnionType):
        return _type_name(typing.get_args(hint)[0])
    if typing.get_origin(hint) is list:
        return "a list of strings"
    return {str: "a string", int: "a whole number", float: "a number", bool: "true or false"}[hint]


def _check_contradictions(config: JobConfig, tables: Mapping[str, Any]) -> None:
    if config.prompt.chat and "template" in tables.get("prompt", {}):
        raise JobError("prompt.template and prompt.chat = true contradict each other: keep one")
    if config.prompt.system is not None and not config.prompt.chat:
        raise JobError("prompt.system needs prompt.chat = true (in prompt.template, write the system text yourself)")
    if len(set(config.output.columns)) < len(config.output.columns):
        raise JobError(f"output.columns = {config.output.columns}: a column is there twice")


def _apply_override(tables: dict[str, Any], override: str) -> None:
    name, equals, text = override.partition("=")
    table, dot, key_name = name.strip().partition(".")
    if not (equals and dot and table and key_name):
        raise JobError(f"--set {override}: expected table.key=value")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    target = tables.setdefault(table, {})
    if not isinstance(target, dict):
        raise JobError(f"--set {override}: {table} is not a table")
    target[key_name] = value


def did_you_mean(name: str, known: Any, prefix: str = "") -> str:
    nearest = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean {prefix}{nearest[0]}?" if nearest else f"; known: {', '.join(sorted(known))}"


def result_keys(config: JobConfig) -> dict[str, Any]:
    """Every key that can change results, with its value: what makes two jobs the same job."""
    keys: dict[str, Any] = {}
    for name, cls in TABLES.items():
        table = getattr(config, name)
        keys.update(
            {f"{name}.{f.name}": getattr(table, f.name) for f in dataclasses.fields(cls) if f.metadata["result"]}
        )
    keys.update({f"engine.{k}": v for k, v in config.engine.items() if k not in _ENGINE_PLACEMENT})
    keys.update({f"sampling.{k}": v for k, v in config.sampling.items()})
    return keys
