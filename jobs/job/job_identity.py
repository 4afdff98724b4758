"""What makes two runs the same job, whatever its number of rows: every key that can change results, and content.

Paths are no part of it, but what they lead to: the same content elsewhere is the same job. Nor are the rows of the
input, of which a job may get more: see job_record.py.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from typing import Any

from run_batch.io.inputs.source import Source
from run_batch.io.secrets import hide_secrets
from run_batch.jobs.job.chat_settings import chat_content
from run_batch.jobs.job.columns import value_types
from run_batch.jobs.job.config import JobConfig, result_keys
from run_batch.jobs.job.content import model_content, plugins_source
from run_batch.jobs.job.prompt_column import PromptColumn
from run_batch.model.checkpoint.adapters import CONFIG as ADAPTER_CONFIG

# Fields of EngineArgs that name a folder beside that of the model.
_FOLDERS = ("engine.tokenizer", "engine.hf_config_path")
# How names of the identity end whose values are digests, which tell people nothing.
_DIGESTS = ("(its files)", "(their source)", "(its text)", "(their text)", "(their images)")


def job_identity(config: JobConfig, source: Source, prompt_column: PromptColumn = PromptColumn.TEXTS) -> dict[str, Any]:
    """What makes two runs the same job: all keys that can change results, and the content behind them.

    Raises:
        JobError: a generation config, or a file that prompt names, cannot be read.
    """
    identity = {**result_keys(config), **chat_content(config)}
    if prompt_column is not PromptColumn.TEXTS:
        identity["input.prompt_column (holds)"] = prompt_column.value
    sampling = config.resolve_sampling()
    identity |= {f"sampling.{name}": value for name, value in sampling.values.items()}
    identity["generation_config.eos_token_id"] = list(sampling.eos_token_ids)
    identity["model.path (its files)"] = model_content(config.model_settings.path, config.engine.get("revision"))
    identity["model.plugins (their source)"] = plugins_source(config.model.plugins, config.folder)
    for name, path in config.model_settings.adapters.items():
        identity[f"{name} (its files)"] = model_content(path, None, ADAPTER_CONFIG)
    for name in _FOLDERS:
        if isinstance(identity.get(name), str) and os.path.isdir(identity[name]):
            identity[f"{name} (its files)"] = model_content(identity.pop(name), None)
    return as_recorded({**identity, **value_types(config, source.schema)})


def as_recorded(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values as they are read back from JSON, without secrets: other credentials for the same data are the same job."""
    recorded: dict[str, Any] = _without_secrets(json.loads(json.dumps(dict(values), default=str)))
    return recorded


def _without_secrets(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_secrets(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_without_secrets(item) for item in value]
    return hide_secrets(value) if isinstance(value, str) else value


def job_hash(identity: Mapping[str, Any]) -> str:
    """A hash of what makes two runs the same job, which journals and shards carry."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What has changed, for people: `KEY: VALUE -> VALUE`, or `KEY: other content`."""
    return [
        f"{name}: other content" if name.endswith(_DIGESTS) else f"{name}: {_show(before, name)} -> {_show(now, name)}"
        for name in sorted({*before, *now})
        if before.get(name) != now.get(name)
    ]


def _show(values: Mapping[str, Any], name: str) -> str:
    return repr(values[name]) if name in values else "(not set)"
