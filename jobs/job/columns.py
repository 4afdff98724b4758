"""The columns of the input that a job reads, and those of its results."""

from typing import Any

import pyarrow as pa

from run_batch.io.arrow_types import describe_values
from run_batch.io.features import classes_at, features_of
from run_batch.io.inputs.sample_images import likely_column, missed_sample, whole_column
from run_batch.io.inputs.source import Source
from run_batch.io.media import image_column
from run_batch.jobs.job.carried_columns import carried_columns, carried_identity, check_carried
from run_batch.jobs.job.config import JobConfig
from run_batch.jobs.job.config_tables import InputTable
from run_batch.jobs.job.errors import JobError
from run_batch.jobs.job.prompt_column import is_message
from run_batch.jobs.job.prompt_template import Field, parse_template, require_column, shown_name
from run_batch.jobs.job.result_columns import result_columns


def needed_columns(config: JobConfig, schema: pa.Schema) -> list[str]:
    """The input columns that mapping reads."""
    table = config.input
    columns = [table.image_column, table.video_column, table.id_column, table.sampling_column, table.lora_column]
    columns += [table.priority_column]
    columns += prompt_columns(config, schema)
    return list(dict.fromkeys(column for column in columns if column))


def prompt_columns(config: JobConfig, schema: pa.Schema) -> list[str]:
    """The columns that prompts are made of."""
    return [field.column for field in _prompt_fields(config, schema)]


def _prompt_fields(config: JobConfig, schema: pa.Schema) -> list[Field]:
    """The columns that prompts are made of, or what is taken of them."""
    prompt, column = config.prompt, config.input.prompt_column
    if is_message(config):  # the column may hold conversations, which no field of a template takes
        require_column("input.prompt_column", column, schema)
        fields = [Field(column, (), schema.field(column).type)]
    else:
        fields = parse_template(prompt.template, column, schema).fields
    if prompt.prefill is not None:
        fields += parse_template(prompt.prefill, column, schema, key="prompt.prefill").fields
    return fields


def value_types(config: JobConfig, schema: pa.Schema) -> dict[str, Any]:
    """What the results of a row depend on beside its values: how they read, and what carried columns are.

    Files that come later may bring other types for all files: a number that is an integer is written in another way
    once the column has fractions, and all shards of a job have the same columns.
    """
    table, fields = config.input, _prompt_fields(config, schema)
    others = filter(None, [table.id_column, config.errors.expected_column])
    features = features_of(schema)
    fields += [Field(name, (), schema.field(name).type, "", classes_at(features, name, ())) for name in others]
    types = {f"input.path (type of {'.'.join([f.column, *f.names])})": describe_values(f.kind) for f in fields}
    types |= {f"input.path (classes of {f.column})": ", ".join(f.classes) for f in fields if f.classes}
    return types | carried_identity(config.output, schema)


def check_columns(config: JobConfig, source: Source) -> None:
    """Check every key that names columns against the input.

    Raises:
        JobError: names the key, the column and what the input has.
    """
    table, schema = config.input, source.schema
    if table.format is None and {"custom_id", "url", "body"} <= set(schema.names):
        raise JobError(
            'input.path holds requests of OpenAI\'s API: set input.format = "openai" to run them, or "jsonl" to read '
            "them as they are"
        )
    if not schema.names:
        raise JobError(f"input.path {table.path}: the input has no rows and no columns")
    _require_named(config, schema)
    _check_used(config, schema)
    if not needed_columns(config, schema):
        raise JobError(
            "prompt.template names no column, and the rows have no images or videos: all rows have the same prompt. "
            "Name a column in it, or the column of images in input.image_column, or of videos in input.video_column"
        )
    check_carried(config.output, schema, result_columns(config))
    for column in [*needed_columns(config, schema), config.errors.expected_column]:
        if column is not None and column in source.unusable:
            raise JobError(f"input.path: column {column} {source.unusable[column]}")
    for column in carried_columns(config.output, schema):
        if column in source.unusable:
            hint = "" if column in config.output.columns else ". Or name the columns to carry in output.columns"
            raise JobError(f"input.path: column {column} {source.unusable[column]}{hint}")
    if table.image_column:
        _check_images(table.image_column, schema)
    if table.video_column is not None:
        _check_videos(table, schema.field(table.video_column).type)
    _check_settings(table, schema)


def _require_named(config: JobConfig, schema: pa.Schema) -> None:
    """Refuse names of columns that the input does not have."""
    table = config.input
    named = {
        "input.image_column": table.image_column or None,
        "input.video_column": table.video_column,
        "input.id_column": table.id_column,
        "input.sampling_column": table.sampling_column,
        "input.lora_column": table.lora_column,
        "input.priority_column": table.priority_column,
        "errors.expected_column": config.errors.expected_column,
        "input.prompt_column": table.prompt_column if is_message(config) else None,
    }
    if table.image_column not in schema.names and "image_column" not in table.model_fields_set:
        names, likely = ", ".join(map(shown_name, schema.names)), likely_column(schema)
        such = f', such as "{likely}",' if likely is not None else ""
        raise JobError(
            f"input.image_column: the input has no column {table.image_column!r}, but {names}; name "
            f'the column of images{such or ","} or set input.image_column = "" if there is none beside the prompts'
        )
    for key, column in named.items():
        if column is not None:
            require_column(key, column, schema)


def _check_settings(table: InputTable, schema: pa.Schema) -> None:
    """Refuse columns of single rows' settings whose type holds none in any row."""
    if table.lora_column is not None and describe_values(schema.field(table.lora_column).type) not in ("text", "null"):
        kind = schema.field(table.lora_column).type
        raise JobError(f"input.lora_column: column {table.lora_column} is {kind}; expected text, the names of adapters")
    if table.priority_column is not None:
        kind = schema.field(table.priority_column).type
        if not (pa.types.is_integer(kind) or pa.types.is_null(kind)):
            raise JobError(f"input.priority_column: column {table.priority_column} is {kind}; expected whole numbers")


def _check_used(config: JobConfig, schema: pa.Schema) -> None:
    """Refuse keys that concern columns which the prompt does not hold."""
    table, columns = config.input, prompt_columns(config, schema)
    if "prompt_column" in table.model_fields_set and table.prompt_column not in columns:
        raise JobError(f'input.prompt_column = "{table.prompt_column}" is not read: prompt.template has no {{prompt}}')
    if config.prompt.image_marker is not None and not columns:
        raise JobError("prompt.image_marker stands for images in columns' texts, and prompt.template holds no column")


def _check_videos(table: InputTable, kind: pa.DataType) -> None:
    if table.video_column == table.image_column:
        raise JobError(f"input.video_column and input.image_column both name {table.video_column}; name two columns")
    if not image_column.can_hold_videos(kind):
        raise JobError(
            f"input.video_column: column {table.video_column} is {kind}, which cannot hold videos; expected "
            f"{image_column.ACCEPTED_VIDEOS}"
        )


def _check_images(column: str, schema: pa.Schema) -> None:
    kind = schema.field(column).type
    if not image_column.can_hold_images(kind):
        raise JobError(
            f"input.image_column: column {column} is {kind}, which cannot hold images; expected {image_column.ACCEPTED}"
        )
    missed = missed_sample(schema, column)
    if missed is not None:
        raise JobError(
            f'input.image_column = "{column}": sample {missed[0]} has its image in another file; set it to '
            f'"{whole_column(schema, column)}", which takes the first of these that a sample has'
        )
