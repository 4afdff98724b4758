"""Reads the rows of one Parquet file, in batches that are limited in bytes too: of large images, some are gigabytes.

pyarrow converts no struct or list column of more than 2 GiB in one batch ("Nested data conversions not implemented for
chunked array outputs").
"""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate

import pyarrow as pa
import pyarrow.parquet as pq

_BATCH_BYTES = 64 << 20


class FileRows:
    """The rows of one open file, read on from where the last read ended; earlier rows begin their row group again."""

    def __init__(self, row_groups: Sequence[int], read: Callable[[int], Iterator[pa.RecordBatch]]) -> None:
        """Read nothing yet.

        Args:
            row_groups: number of rows of each row group.
            read: reads a row group.
        """
        self._stops, self._read_group = list(accumulate(row_groups)), read
        self._batches: Iterator[pa.RecordBatch] = iter(())
        self._rest: pa.RecordBatch | None = None
        # The row that `_rest`, or else the next of `_batches`, begins with; the last row of the open row group, plus 1.
        self._row = self._stop = 0

    def read(self, first: int, last: int) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Rows first..last-1, each batch with the index of its first row in the file.

        Raises:
            OSError, pa.ArrowException: the file cannot be read.
        """
        while first < last:
            batch = self._batch_from(first)
            taken = batch.slice(0, last - first)
            row, first = first, first + taken.num_rows
            self._advance(batch, taken.num_rows)
            yield row, taken

    def _batch_from(self, row: int) -> pa.RecordBatch:
        """Go on to a row; it and those that follow it in its batch."""
        if not self._row <= row < self._stop:
            group = bisect_right(self._stops, row)
            self._row, self._stop = self._stops[group - 1] if group else 0, self._stops[group]
            self._batches, self._rest = self._read_group(group), None
        while True:
            batch = next(self._batches, None) if self._rest is None else self._rest
            if batch is None:
                raise pa.ArrowInvalid(f"row {self._row} is missing, although the footer counts it")
            if row < self._row + batch.num_rows:
                ahead, self._row = row - self._row, row
                return batch.slice(ahead)
            self._advance(batch, batch.num_rows)

    def _advance(self, batch: pa.RecordBatch, rows: int) -> None:
        """Leave rows of a batch behind."""
        self._row += rows
        self._rest = batch.slice(rows) if rows < batch.num_rows else None
        if self._row == self._stop:  # what is held of a row group may be large
            self._batches = iter(())


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
