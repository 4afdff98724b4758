"""Columns that the names of folders make, as Hive and Spark lay out partitions: `lang=de/part-0.parquet`."""

import re
from collections.abc import Collection, Mapping, Sequence
from urllib.parse import unquote

import pyarrow as pa

from run_batch.io.inputs.columns import Columns, unify_columns
from run_batch.io.inputs.file_format import FileFacts

_FOLDER = re.compile(r"([^=/]+)=([^/]*)/")
_NULL = "__HIVE_DEFAULT_PARTITION__"


def partitions_of(name: str) -> dict[str, str | None]:
    """The values in the folders of a file, by column.

    Args:
        name: path of the file below the root of the input.
    """
    found = {unquote(column): unquote(value) for column, value in _FOLDER.findall(name)}
    return {column: None if value == _NULL else value for column, value in found.items()}


def constants_of(name: str, own: Collection[str]) -> dict[str, str | None]:
    """The values in the folders of a file, by column, without the columns that the file has itself.

    Args:
        name: path of the file below the root of the input.
        own: columns of the file.
    """
    return {column: value for column, value in partitions_of(name).items() if column not in own}


def columns_of_files(facts: Sequence[FileFacts]) -> Columns:
    """The columns of all files, in types that hold the values of each, and those that names of folders make."""
    return unify_columns([(one.path, _with_partitions(one.schema, one.name)) for one in facts])


def _with_partitions(schema: pa.Schema, name: str) -> pa.Schema:
    """The columns of a file and of its folders, which are text; where both have one, it is the file's."""
    for column in partitions_of(name):
        if column not in schema.names:
            schema = schema.append(pa.field(column, pa.string()))
    return schema


def with_constants(batch: pa.RecordBatch, values: Mapping[str, str | None]) -> pa.RecordBatch:
    """A batch with columns of one value each."""
    for column, value in values.items():
        batch = batch.append_column(pa.field(column, pa.string()), repeated(value, len(batch)))
    return batch


def repeated(value: str | None, rows: int) -> pa.Array:
    """A column of one value."""
    return pa.repeat(pa.scalar(value, pa.string()), rows)
