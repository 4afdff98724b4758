"""The rows of one open file, in an order that never goes back: a row group is begun once, however it is cut up."""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate

import pyarrow as pa


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
