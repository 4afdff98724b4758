"""job.toml: read from its file, checked against its tables (see `config_tables.py`), and handed on as a JobConfig."""

import datetime
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from run_batch.io.transient import retry
from run_batch.jobs.job.adapters import adapter_key, adapter_paths, check_adapters
from run_batch.jobs.job.config_keys import Effect, effect_of
from run_batch.jobs.job.config_tables import TABLES, UNDECLARED_TABLES, JobTables
from run_batch.jobs.job.config_values import bytes_of
from run_batch.jobs.job.content import vllm_version
from run_batch.jobs.job.engine_placement import ENGINE_PLACEMENT
from run_batch.jobs.job.errors import JobError
from run_batch.jobs.job.input_format import check_input_format, with_format
from run_batch.jobs.job.pooling import check_pooling, is_pooling
from run_batch.jobs.job.result_columns import check_extra
from run_batch.jobs.job.schema_file import with_schema
from run_batch.model.checkpoint.generation_config import ResolvedSampling, resolve_sampling
from run_batch.model.checkpoint.hub import HUB_ID
from run_batch.model.checkpoint.nearest_name import nearest_or_all
from run_batch.model.checkpoint.refused_settings import find_refused
from run_batch.model.checkpoint.settings import ModelSettings, SettingsError
from run_batch.model.checkpoint.unknown_settings import find_unknown


class JobConfig(JobTables):
    """A job, checked as far as job.toml alone allows.

    Attributes:
        folder: the folder of job.toml, which relative paths start from.
    """

    folder: Path

    @property
    def output_folder(self) -> Path:
        """`output.path` as an absolute path."""
        return Path(os.path.normpath(self.folder / os.path.expanduser(self.output.path)))

    @property
    def input_paths(self) -> list[str]:
        """`input.path` as a list, as job.toml has it."""
        return [self.input.path] if isinstance(self.input.path, str) else self.input.path

    @property
    def engines(self) -> int | None:
        """`engine.data_parallel_size`: how many engines of this machine are to run; None where job.toml leaves it out.

        vLLM is never told: its own data parallelism does not run offline.
        """
        return self.engine.get("data_parallel_size")

    @property
    def model_settings(self) -> ModelSettings:
        """The tables `model` and `engine`, as the model side takes them."""
        return ModelSettings(
            path=self.resolve(self.model.path),
            architecture=self.model.architecture,
            engine=self._engine_of_vllm(),
            trust_remote_code=self.model.trust_remote_code,
            adapters={adapter_key(name): self.resolve(path) for name, path in adapter_paths(self).items()},
            mapper=self.model.mapper,
            by_priority=self.input.priority_column is not None,
        )

    @property
    def row_memory(self) -> int | None:
        """`preprocess.memory` in bytes; None where it is not set."""
        return None if self.preprocess.memory is None else bytes_of(self.preprocess.memory)

    def resolve_sampling(self) -> ResolvedSampling:
        """The table `sampling` with the defaults of the model's generation config; nothing for a pooling model.

        Raises:
            JobError: the generation config cannot be read.
        """
        if is_pooling(self):
            return ResolvedSampling({})
        try:
            return resolve_sampling(self.model_settings, self.sampling)
        except SettingsError as error:
            raise JobError(str(error)) from error

    def _engine_of_vllm(self) -> dict[str, Any]:
        """The table `engine` as vLLM takes it."""
        engine = {name: value for name, value in self.engine.items() if name != "data_parallel_size"}
        chosen = engine.get("generation_config")
        if isinstance(chosen, str) and chosen not in ("auto", "vllm"):
            engine["generation_config"] = self.resolve(chosen)
        return engine

    def resolve(self, path: str) -> str:
        """A path of job.toml as an absolute path; a URL, or a Hub id that is no path here, as it is."""
        local = self.folder / os.path.expanduser(path)
        # `org/name` is a Hub id, unless `org` is a folder here: then `name` is a mistyped file in it.
        is_hub_id = HUB_ID.fullmatch(path) and not local.parent.exists()
        return path if "://" in path or is_hub_id else os.path.normpath(local)

    def is_on_hub(self, path: str) -> bool:
        """Whether a path of job.toml is the id of a repository on the Hub."""
        resolved = self.resolve(path)
        return "://" not in resolved and not os.path.isabs(resolved)


def load_config(path: Path, overrides: tuple[str, ...] = ()) -> JobConfig:
    """Read and check a job.toml.

    Args:
        overrides: `table.key=value`, value in TOML or bare text; they win over the file.

    Raises:
        JobError: the file cannot be read, or is no valid job.
    """
    try:
        tables = tomllib.loads(retry(lambda: path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise JobError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise JobError(f"{path} cannot be read: {error}") from error
    # Python refuses numbers of thousands of digits, and tables nested a thousand deep, by errors of their own.
    except (ValueError, RecursionError) as error:
        raise JobError(f"{path} is not TOML: {error}") from None
    for override in overrides:
        _apply_override(tables, override)
    return parse_config(tables, path.resolve().parent)


def parse_config(tables: Mapping[str, Any], folder: Path) -> JobConfig:
    """Check the tables of a job.toml that lies in `folder`.

    Raises:
        JobError: unknown table or key, wrong type, missing key, contradiction.
    """
    # Of a table that is left out, the required keys are reported as missing, one by one.
    given = with_format({**{name: {} for name in TABLES}, **tables})
    try:
        checked = JobTables.model_validate(given)
    except ValidationError as error:
        raise JobError(_explain(min(error.errors(include_url=False), key=_rank), given)) from None
    config = JobConfig(folder=folder, **{**dict(checked), "sampling": with_schema(checked.sampling, folder)})
    _check_contradictions(config)
    return config


def _rank(error: Mapping[str, Any]) -> tuple[bool, bool]:
    """Which of several mistakes is reported: a wrong table first, and an unknown key before the one it stands for."""
    return len(error["loc"]) > 1, error["type"] != "extra_forbidden"


def _explain(error: Mapping[str, Any], given: Mapping[str, Any]) -> str:
    """One line of text for pydantic's error: the full key, the value found, and what is accepted."""
    table, *inner = (part if part.isprintable() else repr(part) for part in map(str, error["loc"]))
    if not inner and error["type"] == "extra_forbidden":
        return f"unknown table [{table}]{nearest_or_all(table, [*TABLES, *UNDECLARED_TABLES])}"
    if not inner:
        return f"{table} must be a table: write [{table}] and its keys below"
    name = inner[0]
    if error["type"] == "extra_forbidden":
        return f"unknown key {table}.{name}{_place_of(name, table)}"
    field = TABLES[table].model_fields[name]
    if error["type"] == "missing":
        return f"{table}.{name} is required: {field.description}"
    return f"{table}.{name} = {_shown(given[table][name])}: expected {_accepted(error, field)} ({field.description})"


def _place_of(name: str, table: str) -> str:
    """A hint at the table that has an unknown key, or at the nearest key of its own table."""
    elsewhere = next((other for other, keys in TABLES.items() if name in keys.model_fields), None)
    if elsewhere is not None:
        return f"; did you mean {elsewhere}.{name}?"
    return nearest_or_all(name, TABLES[table].model_fields, f"{table}.")


def _shown(value: Any) -> str:
    """A value as job.toml has it, or nearly so."""
    if isinstance(value, datetime.date | datetime.time):
        return f"{value} (a date or time: text needs quotes)"
    return repr(value)


_ACCEPTED = {
    "bool_type": "true or false",
    "dict_type": "a table",
    "float_type": "a number",
    "int_type": "a whole number",
    "list_type": "a list of strings",
    "string_type": "a string",
}


def _accepted(error: Mapping[str, Any], field: FieldInfo) -> str:
    """What a key takes, in words, where pydantic refused its value."""
    kind, reason = error["type"], error.get("ctx", {})
    if kind in ("greater_than_equal", "less_than_equal"):
        bounds = reason | _bounds(field)
        return f"a number from {bounds['ge']:,.15g} " + (f"to {bounds['le']:,.15g}" if "le" in bounds else "on")
    if kind == "literal_error":
        return reason["expected"]
    if kind == "value_error":
        return str(reason["error"])
    if kind == "float_type" and type(error["input"]) is int:
        return "a number below 1.8e308"
    is_list_item = len(error["loc"]) > 2
    return _ACCEPTED["list_type" if is_list_item else kind]


def _bounds(field: FieldInfo) -> dict[str, float]:
    """The least and the greatest value of a number, also of one that may be left out."""
    optional = [marker for kind in get_args(field.annotation) for marker in getattr(kind, "__metadata__", ())]
    declared = [*field.metadata, *(bound for marker in optional for bound in getattr(marker, "metadata", ()))]
    return {name: getattr(bound, name) for bound in declared for name in ("ge", "le") if hasattr(bound, name)}


def _check_contradictions(config: JobConfig) -> None:
    check_input_format(config)
    _check_prompt(config)
    check_adapters(config)
    check_pooling(config)
    rows_bring_sampling, has_adapters = config.input.sampling_column is not None, bool(adapter_paths(config))
    may_have_videos = config.input.video_column is not None or config.prompt.chat
    refused = find_refused(config.engine, config.sampling, rows_bring_sampling, has_adapters, may_have_videos)
    refused = refused or find_unknown(vllm_version(), config.engine, config.sampling)
    if refused is not None:
        raise JobError(refused)
    engines = config.engines
    if engines is not None and (type(engines) is not int or engines < 1):
        raise JobError(
            f"engine.data_parallel_size = {engines!r}: expected a whole number from 1 on (engines of this machine)"
        )
    if config.input.priority_column is not None and config.engine.get("scheduling_policy") is not None:
        raise JobError("engine.scheduling_policy: input.priority_column sets it; remove one of them")
    if (engines or 1) > 1 and config.engine.get("device_ids") is not None:
        raise JobError(
            "engine.device_ids and engine.data_parallel_size exclude each other: engines take the visible GPUs one "
            "after the other; choose these by CUDA_VISIBLE_DEVICES"
        )
    check_extra(config)


def _check_prompt(config: JobConfig) -> None:
    """Refuse keys of [prompt] that would do nothing."""
    prompt = config.prompt
    for name in ("system", "chat_template", "chat_template_kwargs", "prefill", "tools", "examples"):
        if name in prompt.model_fields_set and not prompt.chat:
            raise JobError(
                f"prompt.{name} needs prompt.chat = true (in prompt.template, write the whole prompt yourself)"
            )
    if prompt.image_marker is not None and not config.input.image_column:
        raise JobError('prompt.image_marker stands for images of input.image_column, which is ""')


def _apply_override(tables: dict[str, Any], override: str) -> None:
    name, equals, text = override.partition("=")
    *names, key = name.strip().split(".")
    if not (equals and names and all([*names, key])):
        raise JobError(f"--set {override}: expected table.key=value")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        value = text
    target: Any = tables
    for depth, part in enumerate(names, 1):
        target = target.setdefault(part, {})
        if not isinstance(target, dict):
            raise JobError(f"--set {override}: {'.'.join(names[:depth])} is not a table")
    target[key] = value


def result_keys(config: JobConfig) -> dict[str, Any]:
    """Every key whose value itself can change results: jobs that have others are other jobs."""
    keys = _keys(config, Effect.ANOTHER_JOB)
    # Of a generation config, the sampling settings that come of it count: see job_identity.
    free = ENGINE_PLACEMENT | {"generation_config", "override_generation_config"}
    keys |= {f"engine.{name}": value for name, value in config.engine.items() if name not in free}
    keys |= {f"sampling.{name}": value for name, value in config.sampling.items()}
    return keys


def named_content(config: JobConfig) -> dict[str, Any]:
    """Every key that names content or a number of rows, with its value: where they lead to tells which job it is."""
    return _keys(config, Effect.CONTENT) | _keys(config, Effect.MAY_GROW)


def _keys(config: JobConfig, effect: Effect) -> dict[str, Any]:
    return {
        f"{table}.{name}": getattr(getattr(config, table), name)
        for table, declared in TABLES.items()
        for name, field in declared.model_fields.items()
        if effect_of(field) is effect
    }
