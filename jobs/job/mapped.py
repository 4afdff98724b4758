"""What crosses from the worker processes to the engine, and what both need to know of the job.

Imports neither torch nor vLLM: the workers are started before the engine's process spends seconds on those.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from run_batch.jobs.job.config import JobConfig
from run_batch.jobs.job.prompt_template import parse_template
from run_batch.model.checkpoint.settings import ModelSettings

# A row's error says what is wrong; it does not carry the row's content into the results.
_ERROR_CHARACTERS = 500


@dataclass(frozen=True, slots=True)
class MappedRow:
    """A row that the engine can take.

    Attributes:
        row: index in the input.
        engine_input: what `LLMEngine.add_request` takes.
        sampling: this row's own sampling settings, over the job's; empty for most jobs.
    """

    row: int
    engine_input: Any
    sampling: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class RowFailure:
    """A row that failed.

    Attributes:
        row: index in the input.
        error: `KIND: what is wrong with this row`.
    """

    row: int
    error: str


def row_failure(row: int, error: Exception) -> RowFailure:
    """The failure of a row from what was raised for it: one line of printable text, however hostile the row is."""
    text = " ".join(str(error).encode("utf-8", "backslashreplace").decode().split())
    text = "".join(c if c.isprintable() else "\ufffd" for c in text[: _ERROR_CHARACTERS + 1])
    return RowFailure(row, text if len(text) <= _ERROR_CHARACTERS else text[:_ERROR_CHARACTERS] + " …")


def model_settings(config: JobConfig) -> ModelSettings:
    """The model side of a job's configuration."""
    return ModelSettings(
        path=config.resolve(config.model.path),
        architecture=config.model.architecture,
        engine=config.engine,
        trust_remote_code=config.model.trust_remote_code,
    )


def needed_columns(config: JobConfig, schema: pa.Schema) -> list[str]:
    """The input columns that mapping reads."""
    table = config.input
    columns = [table.image_column, table.id_column, table.sampling_column]
    if config.prompt.chat:
        columns.append(table.prompt_column)
    else:
        columns += parse_template(config.prompt.template, table.prompt_column, schema).columns
    return list(dict.fromkeys(column for column in columns if column))
