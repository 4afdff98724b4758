"""Columns that the names of folders make, as Hive and Spark lay out partitions: `lang=de/part-0.parquet`."""

import re
from collections.abc import Mapping
from urllib.parse import unquote

import pyarrow as pa

_FOLDER = re.compile(r"([^=/]+)=([^/]*)/")
_NULL = "__HIVE_DEFAULT_PARTITION__"


def partitions_of(name: str) -> dict[str, str | None]:
    """The values in the folders of a file, by column.

    Args:
        name: path of the file below the root of the input.
    """
    found = {unquote(column): unquote(value) for column, value in _FOLDER.findall(name)}
    return {column: None if value == _NULL else value for column, value in found.items()}


def with_partitions(schema: pa.Schema, name: str) -> pa.Schema:
    """The columns of a file and of its folders, which are text; where both have one, it is the file's."""
    for column in partitions_of(name):
        if column not in schema.names:
            schema = schema.append(pa.field(column, pa.string()))
    return schema


def with_constants(batch: pa.RecordBatch, values: Mapping[str, str | None]) -> pa.RecordBatch:
    """A batch with columns of one value each."""
    for column, value in values.items():
        batch = batch.append_column(pa.field(column, pa.string()), pa.repeat(pa.scalar(value, pa.string()), len(batch)))
    return batch
