"""The columns of the input that a job reads, and those of its results."""

import pyarrow as pa

from run_batch.jobs.job.config import JobConfig
from run_batch.jobs.job.errors import JobError
from run_batch.jobs.job.prompt_template import parse_template, require_column


def needed_columns(config: JobConfig, schema: pa.Schema) -> list[str]:
    """The input columns that mapping reads."""
    table = config.input
    columns = [table.image_column, table.id_column, table.sampling_column]
    if config.prompt.chat:
        columns.append(table.prompt_column)
    else:
        columns += parse_template(config.prompt.template, table.prompt_column, schema).columns
    return list(dict.fromkeys(column for column in columns if column))


RESULT_COLUMNS = (
    "row_id",
    "text",
    "texts",
    "finish_reason",
    "prompt_tokens",
    "generated_tokens",
    "error",
    "matches_expected",
    "logprobs",
)


def check_columns(config: JobConfig, schema: pa.Schema) -> None:
    """Check every key that names columns against the input.

    Raises:
        JobError: names the key, the column and what the input has.
    """
    table = config.input
    if table.image_column:
        require_column("input.image_column", table.image_column, schema)
    if config.prompt.chat:
        require_column("input.prompt_column", table.prompt_column, schema)
    else:
        parse_template(config.prompt.template, table.prompt_column, schema)
    if table.id_column is not None:
        require_column("input.id_column", table.id_column, schema)
    if table.sampling_column is not None:
        require_column("input.sampling_column", table.sampling_column, schema)
    if config.errors.expected_column is not None:
        require_column("errors.expected_column", config.errors.expected_column, schema)
    for column in config.output.columns:
        if column in RESULT_COLUMNS:
            raise JobError(f"output.columns: {column} is the name of a result column; rename it in the input")
        require_column("output.columns", column, schema)
