"""Reads the rows of one Parquet file, in batches that are limited in bytes too: of large images, some are gigabytes.

pyarrow converts no struct or list column of more than 2 GiB in one batch ("Nested data conversions not implemented for
chunked array outputs").
"""

from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

_BATCH_BYTES = 64 << 20


def read_group(
    parquet: pq.ParquetFile, group: int, columns: Sequence[str], batch_rows: int
) -> Iterator[pa.RecordBatch]:
    """The rows of a row group in batches of at most `batch_rows`, and of about 64 MiB or one row."""
    rows = min(batch_rows, rows_within(_BATCH_BYTES, parquet.metadata.row_group(group), columns))
    given = 0
    while True:
        skipped = 0
        try:
            batches = parquet.iter_batches(
                batch_size=rows, row_groups=[group], columns=list(columns), use_threads=False
            )
            for batch in batches:
                begin = min(given - skipped, batch.num_rows)
                skipped += begin
                if begin < batch.num_rows:
                    yield batch.slice(begin)
                    skipped += batch.num_rows - begin
                    given = skipped
            return
        # Values that are stored once and repeated take more than the file tells.
        except pa.ArrowNotImplementedError:
            if rows == 1:
                raise
            rows = max(1, rows // 4)


def rows_within(nbytes: int, group: pq.RowGroupMetaData, columns: Sequence[str]) -> int:
    """How many rows of a row group take about `nbytes` in some columns; at least one."""
    chunks = [group.column(i) for i in range(group.num_columns)]
    used = sum(c.total_uncompressed_size for c in chunks if c.path_in_schema.split(".")[0] in columns)
    return max(1, nbytes * group.num_rows // max(used, 1))
