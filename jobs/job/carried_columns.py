"""The columns of the input that results carry, and their names there: what `output.columns` says of an input."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from run_batch.io.features import class_names, features_of
from run_batch.io.inputs.sample_images import joined_column
from run_batch.io.outputs.readable_types import readable_type
from run_batch.jobs.job.config_tables import OutputTable
from run_batch.jobs.job.config_values import ALL_COLUMNS
from run_batch.jobs.job.errors import JobError
from run_batch.jobs.job.prompt_template import require_column


def carried_columns(output: OutputTable, schema: pa.Schema) -> dict[str, str]:
    """The columns of the input that are carried, each with its name in the results, in their order there."""
    named = output.columns if isinstance(output.columns, Mapping) else {name: name for name in output.columns}
    taken = {*named, joined_column(schema)}
    others = {name: name for name in schema.names if name not in taken} if ALL_COLUMNS in named else {}
    return {**{name: new for name, new in named.items() if name != ALL_COLUMNS}, **others}


def carried_identity(output: OutputTable, schema: pa.Schema) -> dict[str, Any]:
    """What a job's identity says of carried columns: their names here and there, their types, the names of classes.

    However `output.columns` says it, what is carried counts: `["*"]` is the same as the list of all columns. The
    numbers of a class label mean other classes once its names are others.
    """
    carried, features = carried_columns(output, schema), features_of(schema)
    named: list[Any] = [name if name == new else [name, new] for name, new in carried.items()]
    types = {f"output.columns (type of {name})": str(schema.field(name).type) for name in carried}
    classes = {f"output.columns (classes of {name})": class_names(features.get(name)) for name in carried}
    return {"output.columns": named, **types, **{key: names for key, names in classes.items() if names}}


def check_carried(output: OutputTable, schema: pa.Schema, result_columns: Sequence[str]) -> None:
    """Check carried columns against the input, one another and the columns of the results.

    Raises:
        JobError: names the column, and the way out.
    """
    # Names that differ in case alone can be written, but DuckDB and Spark then read one column for the other.
    taken = {name.casefold(): f"the result column {name}" for name in result_columns}
    for column, name in carried_columns(output, schema).items():
        require_column("output.columns", column, schema)
        other, taken[name.casefold()] = taken.get(name.casefold()), f"column {name}"
        if name in result_columns:
            raise JobError(f"output.columns: {name} is the name of a result column; {_way_out(output, column)}")
        if other == f"column {name}":
            raise JobError(f"output.columns: two columns would be called {name}; {_way_out(output, column)}")
        if other is not None:
            raise JobError(
                f"output.columns: {name} differs from {other} in upper and lower case alone, which SQL engines do not "
                f"tell apart; {_way_out(output, column)}"
            )
        _check_writable(schema.field(column))


def _way_out(output: OutputTable, column: str) -> str:
    """How to carry a column under another name, with all else that is carried."""
    columns = output.columns if isinstance(output.columns, Mapping) else {name: name for name in output.columns}
    table = ", ".join(f"{_quoted(k)} = {_quoted(v)}" for k, v in {**columns, column: f"input_{column}"}.items())
    return f"rename it: output.columns = {{ {table} }}"


def _quoted(name: str) -> str:
    return json.dumps(name, ensure_ascii=False)


def _check_writable(field: pa.Field) -> None:
    try:
        written = pa.schema([(field.name, readable_type(field.type))])
        pa.nulls(0, field.type).cast(written.field(0).type)
        pq.write_table(written.empty_table(), pa.BufferOutputStream())
    except (pa.ArrowException, ValueError) as error:
        raise JobError(
            f"output.columns: column {field.name} is {field.type}, which Parquet files cannot hold: {error}"
        ) from None
