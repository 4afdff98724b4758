"""The content of a shard: tables as a Parquet file, in row groups and pages that readers can hold."""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from typing import IO

import pyarrow as pa
import pyarrow.parquet as pq

# Readers take a row group at once, several at a time: one of large carried images is limited in bytes.
ROW_GROUP_BYTES = 128 << 20
_ROW_GROUP_ROWS = 1 << 20
# Rows of a page, and of what its dictionary grows by before it is found too large, as pyarrow has them.
_PAGE_ROWS = 1024
_PAGE_BYTES = 1 << 20


def write_shard(
    tables: Iterable[pa.Table], file: IO[bytes], compression: str, metadata: Callable[[], Mapping[str, str]]
) -> None:
    """Write the rows of tables to a file that is open, with page checksums; one table at a time is held.

    Args:
        tables: at least one; all of one schema.
        compression: of all columns: `none`, or a codec by pyarrow's name.
        metadata: gives entries to add to the footer, once all rows are written.

    Raises:
        OSError: the file cannot be written.
    """
    with ExitStack() as opened:
        writer = None
        for table in tables:
            if writer is None:
                options = {"write_page_checksum": True, "write_batch_size": _page_rows(table)}
                writer = opened.enter_context(pq.ParquetWriter(file, table.schema, compression=compression, **options))
            for rows in row_groups(table):
                writer.write_table(rows, row_group_size=max(1, len(rows)))
            del table, rows  # before the next one is read
        assert writer is not None, "a shard has rows"
        writer.add_key_value_metadata(dict(metadata()))


def _page_rows(table: pa.Table) -> int:
    """Rows of a page of the largest column: by default a page of large images has 1,024 of them."""
    largest = max((column.nbytes for column in table.columns), default=0)
    return max(1, min(_PAGE_ROWS, _PAGE_BYTES * len(table) // max(largest, 1)))


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
