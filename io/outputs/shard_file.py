"""The content of a shard: a table as a Parquet file, in row groups that readers can hold."""

from bisect import bisect_right
from collections.abc import Iterator
from typing import IO

import pyarrow as pa
import pyarrow.parquet as pq

# Readers take a row group at once, several at a time: one of large carried images is limited in bytes.
ROW_GROUP_BYTES = 128 << 20
_ROW_GROUP_ROWS = 1 << 20


def write_shard(table: pa.Table, file: IO[bytes], compression: str) -> None:
    """Write a table to a file that is open, with page checksums.

    Args:
        compression: of all columns: `none`, or a codec by pyarrow's name.

    Raises:
        OSError: the file cannot be written.
    """
    with pq.ParquetWriter(file, table.schema, compression=compression, write_page_checksum=True) as writer:
        for rows in row_groups(table):
            writer.write_table(rows, row_group_size=max(1, len(rows)))


def row_groups(table: pa.Table) -> Iterator[pa.Table]:
    """The rows of a table in row groups of up to `ROW_GROUP_BYTES` in memory, and of one row where that is larger."""
    shared = table.slice(0, 0).nbytes  # dictionaries, which every slice has whole
    start = 0
    while start < len(table):
        rows = _rows_that_fit(table.slice(start, _ROW_GROUP_ROWS), ROW_GROUP_BYTES + shared)
        yield table.slice(start, rows)
        start += rows


def _rows_that_fit(table: pa.Table, limit: int) -> int:
    if table.nbytes <= limit:
        return len(table)
    return max(1, bisect_right(range(1, len(table) + 1), limit, key=lambda rows: table.slice(0, rows).nbytes))
