"""job.toml: read from its file, checked against its tables, and handed on as a JobConfig."""

import dataclasses
import os
import re
import tomllib
import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field
from pathlib import Path
from typing import Any

from run_batch.jobs.job.errors import JobError
from run_batch.jobs.job.tables import (
    ENGINE_PLACEMENT,
    FREE_TABLES,
    TABLES,
    ErrorsTable,
    InputTable,
    ModelTable,
    OutputTable,
    PreprocessTable,
    PromptTable,
)
from run_batch.model.checkpoint.nearest_name import nearest_or_all

_HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")


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
            raise JobError(f"unknown table [{name}]{nearest_or_all(name, [*TABLES, *FREE_TABLES])}")
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
            hint = f"; did you mean {elsewhere[0]}?" if elsewhere else nearest_or_all(found, fields, f"{name}.")
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


def result_keys(config: JobConfig) -> dict[str, Any]:
    """Every key that can change results, with its value: what makes two jobs the same job."""
    keys: dict[str, Any] = {}
    for name, cls in TABLES.items():
        table = getattr(config, name)
        keys.update(
            {f"{name}.{f.name}": getattr(table, f.name) for f in dataclasses.fields(cls) if f.metadata["result"]}
        )
    keys.update({f"engine.{k}": v for k, v in config.engine.items() if k not in ENGINE_PLACEMENT})
    keys.update({f"sampling.{k}": v for k, v in config.sampling.items()})
    return keys
