"""Reads the rows of Parquet files, from any row on."""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from typing import TypeAlias

import pyarrow as pa

from run_batch.io.inputs.columns import cast_batches, unify_columns
from run_batch.io.inputs.dataset_card import files_and_splits
from run_batch.io.inputs.input_files import find_files
from run_batch.io.inputs.input_parts import InputPart
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
from run_batch.io.inputs.splits import asked_rows, choose_files

# Rows of one file: index of the file, first row, last row + 1.
_Part: TypeAlias = tuple[int, int, int]


class ParquetSource:
    """The rows of Parquet files, file after file in the order of their names."""

    def __init__(
        self,
        path: str,
        index: bytes = b"",
        split: str | None = None,
        name: str | None = None,
        leave_out: Callable[[str], bool] = lambda _: False,
    ) -> None:
        """Find the files and read their footers.

        Args:
            path: a file, folder or glob, or an fsspec URL of one.
            index: `index` of an earlier source. If it lists the same file names, no footer is read now: each file is
                checked against the index when its rows are read.
            split: the split to read, or parts of splits such as `train[:10%]`; see splits.py.
            name: the configuration to read, of a folder whose README.md declares some.
            leave_out: whether a local file, given by its real path, is no part of the input.

        Raises:
            InputError: no such file, no Parquet file, no such configuration or split.
        """
        found, splits = files_and_splits(find_files(path, leave_out), name)
        chosen = choose_files([found.name(file) for file in found.paths], splits, split)
        self._files = replace(found, paths=[found.paths[i] for files in chosen.values() for i in files])
        recorded = load_index(self._files, index)
        self._footers = recorded[0] if recorded else read_footers(self._files)
        self._columns = recorded[1] if recorded else unify_columns(_schemas(self._footers))
        self.schema, self.unusable = self._columns.schema, self._columns.unusable
        self._parts = self._asked_parts(split, {name: len(files) for name, files in chosen.items()})
        self._starts = [0, *accumulate(last - first for _, first, last in self._parts)]
        self.num_rows = self._starts[-1]
        self.folder = None if self._files.filesystem else Path(self._files.root)

    def _asked_parts(self, split: str | None, files: Mapping[str, int]) -> list[_Part]:
        """The rows of the files that `input.split` asks for.

        Args:
            files: number of files of each split; they follow each other.
        """
        every = [(index, 0, footer.num_rows) for index, footer in enumerate(self._footers)]
        starts = [0, *accumulate(footer.num_rows for footer in self._footers)]
        begin, sizes, position = dict[str, int](), dict[str, int](), 0
        for name, count in files.items():
            begin[name], sizes[name] = starts[position], starts[position + count] - starts[position]
            position += count
        asked = [(begin[name] + first, begin[name] + last) for name, first, last in asked_rows(split, sizes)]
        return [part for low, high in asked for part, _ in _overlaps(every, starts, low, high)]

    @property
    def parts(self) -> list[InputPart]:
        """The rows of each file; see Source.parts."""
        files = self._footers
        return [InputPart(files[i].name, files[i].digest, first, last - first) for i, first, last in self._parts]

    @property
    def index(self) -> bytes:
        """The footers as JSON, for processes that open the same input later."""
        return dump_index(self._footers, self._columns)

    def read(self, start: int, stop: int, columns: Sequence[str], batch_rows: int) -> Iterator[RowBatch]:
        """Read rows start..stop-1 in batches; see Source.read."""
        for (index, first, last), offset in _overlaps(self._parts, self._starts, start, stop):
            file = self._footers[index]
            try:
                self._check_unchanged(index)
                yield from self._read_file(file, offset, first, last, columns, batch_rows)
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

    def row_names(self, start: int, stop: int) -> list[str]:
        """Name rows start..stop-1 by `FILE:ROW`; see Source.row_names."""
        return [
            f"{self._footers[index].name}:{row}"
            for (index, first, last), _ in _overlaps(self._parts, self._starts, start, stop)
            for row in range(first, last)
        ]


def _overlaps(parts: Sequence[_Part], starts: Sequence[int], start: int, stop: int) -> Iterator[tuple[_Part, int]]:
    """Cut parts to rows start..stop-1 of all of them together.

    Args:
        starts: the row that each part begins with.

    Yields:
        What a part has of these rows, and the row that the first row of its file has or would have.
    """
    position = bisect_right(starts, start) - 1
    while position < len(parts) and starts[position] < stop:
        index, low, high = parts[position]
        offset = starts[position] - low
        first, last = max(start - offset, low), min(stop - offset, high)
        if first < last:
            yield (index, first, last), offset
        position += 1


def _schemas(footers: Sequence[FileFooter]) -> list[tuple[str, pa.Schema]]:
    """Path and schema of each file; files without rows count only where no file has any."""
    with_rows = [footer for footer in footers if footer.num_rows]
    return [(footer.path, footer.schema) for footer in with_rows or footers]


def _clip(batches: Iterator[pa.RecordBatch], offset: int, position: int, first: int, last: int) -> Iterator[RowBatch]:
    """Cut batches to rows first..last-1 of their file.

    Args:
        offset: row of the input that the file begins with, or would.
        position: row of the file that the batches begin with.
    """
    for batch in batches:
        low, high = max(first - position, 0), min(last - position, batch.num_rows)
        if low < high:
            yield RowBatch(offset + position + low, batch.slice(low, high - low))
        position += batch.num_rows
        if position >= last:
            return
