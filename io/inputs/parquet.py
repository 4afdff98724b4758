"""Reads the rows of Parquet files, from any row on."""

import hashlib
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from pathlib import Path

import pyarrow as pa

from run_batch.io.inputs.columns import cast_batches, unify_columns
from run_batch.io.inputs.input_files import find_files
from run_batch.io.inputs.parquet_batches import read_group
from run_batch.io.inputs.parquet_footers import (
    FileFooter,
    dump_index,
    load_index,
    open_parquet,
    read_footer,
    read_footers,
)
from run_batch.io.inputs.source import DamagedInputError, RowBatch


class ParquetSource:
    """The rows of Parquet files, file after file in the order of their names."""

    def __init__(self, path: str, index: bytes = b"", leave_out: Callable[[str], bool] = lambda _: False) -> None:
        """Find the files and read their footers.

        Args:
            path: a file, folder or glob, or an fsspec URL of one.
            index: `index` of an earlier source. If it lists the same file names, no footer is read now: each file is
                checked against the index when its rows are read.
            leave_out: whether a local file, given by its real path, is no part of the input.

        Raises:
            InputError: no such file, or no Parquet file.
        """
        self._files = find_files(path, leave_out)
        recorded = load_index(self._files, index)
        self._footers = recorded[0] if recorded else read_footers(self._files)
        self._columns = recorded[1] if recorded else unify_columns(_schemas(self._footers))
        self.schema, self.unusable = self._columns.schema, self._columns.unusable
        self._starts = [0, *accumulate(footer.num_rows for footer in self._footers)]
        self.num_rows = self._starts[-1]
        self.folder = None if self._files.filesystem else Path(self._files.root)
        self.fingerprint = hashlib.sha256(
            "\n".join(f"{f.name} {f.size} {f.digest}" for f in self._footers).encode()
        ).hexdigest()

    @property
    def index(self) -> bytes:
        """The footers as JSON, for processes that open the same input later."""
        return dump_index(self._footers, self._columns)

    def read(self, start: int, stop: int, columns: Sequence[str], batch_rows: int) -> Iterator[RowBatch]:
        """Read rows start..stop-1 in batches; see Source.read."""
        for index, first, last in self._spans(start, stop):
            file = self._footers[index]
            try:
                self._check_unchanged(index)
                yield from self._read_file(file, self._starts[index], first, last, columns, batch_rows)
                self._check_unchanged(index)
            except FileNotFoundError:
                raise DamagedInputError(
                    f"{file.path} no longer exists; put it back and run the same command again"
                ) from None
            except (OSError, pa.ArrowException) as error:
                raise DamagedInputError(
                    f"{file.path} is damaged: {error}; put a good copy in its place and run the same command again"
                ) from None

    def _check_unchanged(self, index: int) -> None:
        file = self._footers[index]
        if self._files.state(file.path) == (file.size, file.changed):
            return
        # A copy of the same data may have taken the place of the file that the index recorded.
        found = read_footer(self._files, file.path) if file.recorded else None
        if found is not None and found.digest == file.digest:
            self._footers[index] = found
        else:
            raise DamagedInputError(
                f"{file.path} has changed since the job started; put the old file back and run the same command "
                "again, or start a new job"
            )

    def _read_file(
        self, file: FileFooter, offset: int, first: int, last: int, columns: Sequence[str], batch_rows: int
    ) -> Iterator[RowBatch]:
        schema = pa.schema([self.schema.field(name) for name in columns])
        with open_parquet(self._files, file.path) as parquet:
            position = 0
            for group, rows in enumerate(file.row_groups):
                if position + rows > first and position < last:
                    batches = read_group(parquet, group, columns, batch_rows)
                    yield from _clip(cast_batches(batches, schema, file.path), offset, position, first, last)
                position += rows

    def _spans(self, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
        """Yield (index of the file, first row, last row + 1) for each file that holds some of the rows."""
        index = bisect_right(self._starts, start) - 1
        while index < len(self._footers) and self._starts[index] < stop:
            offset = self._starts[index]
            first, last = max(start - offset, 0), min(stop - offset, self._footers[index].num_rows)
            if first < last:
                yield index, first, last
            index += 1

    def row_names(self, start: int, stop: int) -> list[str]:
        """Name rows start..stop-1 by `FILE:ROW`; see Source.row_names."""
        return [
            f"{self._footers[index].name}:{row}"
            for index, first, last in self._spans(start, stop)
            for row in range(first, last)
        ]


def _schemas(footers: Sequence[FileFooter]) -> list[tuple[str, pa.Schema]]:
    """Path and schema of each file; files without rows count only where no file has any."""
    with_rows = [footer for footer in footers if footer.num_rows]
    return [(footer.path, footer.schema) for footer in with_rows or footers]


def _clip(batches: Iterator[pa.RecordBatch], offset: int, position: int, first: int, last: int) -> Iterator[RowBatch]:
    """Cut batches to rows first..last-1 of their file.

    Args:
        offset: row of the input that the file begins with.
        position: row of the file that the batches begin with.
    """
    for batch in batches:
        low, high = max(first - position, 0), min(last - position, batch.num_rows)
        if low < high:
            yield RowBatch(offset + position + low, batch.slice(low, high - low))
        position += batch.num_rows
        if position >= last:
            return
