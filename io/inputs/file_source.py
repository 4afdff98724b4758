"""Reads the rows of files, file after file, from any row on; what a format does of it is in file_format.py."""

import time
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, groupby
from pathlib import Path
from typing import TypeAlias

import pyarrow as pa

from run_batch.io.inputs.dataset_card import files_and_splits
from run_batch.io.inputs.file_format import FileFacts, FileFormat, OpenFile, Rows, dump_index, load_index
from run_batch.io.inputs.input_files import InputFiles
from run_batch.io.inputs.input_parts import InputPart
from run_batch.io.inputs.read_errors import reading
from run_batch.io.inputs.source import LostInputError, RowBatch
from run_batch.io.inputs.splits import asked_rows, choose_files

# Rows of one file: index of the file, first row, last row + 1.
_Part: TypeAlias = tuple[int, int, int]
# Between two looks at whether an open remote file has changed.
_LOOK_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where the rows of an input are.

    Attributes:
        parts: in the order of the rows.
        starts: the row that each part begins with, and the number of all rows.
    """

    parts: Sequence[_Part]
    starts: Sequence[int]

    @classmethod
    def of(cls, parts: Sequence[_Part]) -> "_Layout":
        return cls(parts, [0, *accumulate(last - first for _, first, last in parts)])

    def overlaps(self, start: int, stop: int) -> Iterator[tuple[_Part, int]]:
        """Cut the parts to rows start..stop-1 of the input.

        Yields:
            What a part has of these rows, and the row that the first row of its file has or would have.
        """
        position = bisect_right(self.starts, start) - 1
        while position < len(self.parts) and self.starts[position] < stop:
            index, low, high = self.parts[position]
            offset = self.starts[position] - low
            first, last = max(start - offset, low), min(stop - offset, high)
            if first < last:
                yield (index, first, last), offset
            position += 1


class FileSource:
    """The rows of files of one format, file after file."""

    def __init__(
        self, files: InputFiles, kind: FileFormat, index: bytes = b"", split: str | None = None, name: str | None = None
    ) -> None:
        """Look at each file.

        Args:
            files: where there are no splits, all of them are read, in this order.
            index: `index` of an earlier source. If it lists the same file names, no file is looked at now: each is
                checked against the index when its rows are read.
            split: the split to read, or parts of splits such as `train[:10%]`; see splits.py.
            name: the configuration to read, of a folder whose README.md declares some.

        Raises:
            InputError: a file is of another format; no such configuration or split.
        """
        found, splits = files_and_splits(files, name)
        if files.is_list and split is None:
            splits = {}  # whoever lists files means all of them, whatever they are called
        chosen = choose_files([found.name(file) for file in found.paths], splits, split)
        self._kind = kind
        self._files = replace(found, paths=[found.paths[i] for indices in chosen.values() for i in indices])
        recorded = load_index(kind, self._files, index)
        self._facts = recorded[0] if recorded else kind.look_at_all(self._files)
        self._columns = recorded[1] if recorded else kind.columns(with_rows(self._facts))
        self._facts = [replace(one, content=None) for one in self._facts]  # the columns are made of it, and it is large
        self.schema, self.unusable = self._columns.schema, self._columns.unusable
        parts = self._asked_parts(split, {split: len(indices) for split, indices in chosen.items()})
        self._layout = _Layout.of(parts)
        self.num_rows = self._layout.starts[-1]
        self.folder = None if self._files.filesystem else Path(self._files.root)

    def _asked_parts(self, split: str | None, files: Mapping[str, int]) -> list[_Part]:
        """The rows of the files that `input.split` asks for.

        Args:
            files: number of files of each split; they follow each other.
        """
        every = [(index, 0, footer.num_rows) for index, footer in enumerate(self._facts)]
        starts = [0, *accumulate(footer.num_rows for footer in self._facts)]
        begin, sizes, position = dict[str, int](), dict[str, int](), 0
        for name, count in files.items():
            begin[name], sizes[name] = starts[position], starts[position + count] - starts[position]
            position += count
        asked = [(begin[name] + first, begin[name] + last) for name, first, last in asked_rows(split, sizes)]
        return [part for low, high in asked for part, _ in _Layout(every, starts).overlaps(low, high)]

    @property
    def parts(self) -> list[InputPart]:
        """The rows of each file; see Source.parts."""
        facts = self._facts
        return [InputPart(facts[i].name, facts[i].digest, first, last - first) for i, first, last in self._layout.parts]

    @property
    def index(self) -> bytes:
        """What is known of the files as JSON; see Source.index."""
        return dump_index(self._kind, self._files, self._facts, self._columns)

    def cursor(self, columns: Sequence[str], batch_rows: int) -> "FileCursor":
        """Make a cursor; see Source.cursor."""
        schema = pa.schema([self.schema.field(name) for name in columns])
        return FileCursor(self._files, self._kind, self._facts, self._layout, schema, batch_rows)

    def starts(self) -> Iterator[range]:
        """The rows at which row groups begin, or files that are read from their beginning; see Source.starts."""
        for (index, low, high), begin in zip(self._layout.parts, self._layout.starts, strict=False):
            yield range(begin, begin + 1)
            facts = self._facts[index]
            for rows in _group_starts(facts.row_groups if facts.is_seekable else ()):
                inside = rows[bisect_right(rows, low) : bisect_left(rows, high)]
                if inside:
                    offset = begin - low
                    yield range(inside.start + offset, inside.stop + offset, inside.step)

    def row_names(self, start: int, stop: int) -> list[str]:
        """Name rows start..stop-1 by `FILE:ROW`; see Source.row_names."""
        return [
            f"{self._facts[index].name}:{row}"
            for (index, first, last), _ in self._layout.overlaps(start, stop)
            for row in range(first, last)
        ]


class FileCursor:
    """Reads on through files: within a row group too, whose front it would otherwise read again."""

    def __init__(
        self,
        files: InputFiles,
        kind: FileFormat,
        facts: list[FileFacts],
        layout: _Layout,
        schema: pa.Schema,
        batch_rows: int,
    ) -> None:
        """Open no file yet.

        Args:
            facts: of all files; one that an index recorded is replaced by what is found of a copy of its file.
            schema: the columns to read.
        """
        self._files, self._kind, self._facts, self._layout = files, kind, facts, layout
        self._schema, self._batch_rows = schema, batch_rows
        self._open: tuple[int, OpenFile] | None = None
        self._looked = 0.0

    def read(self, start: int, stop: int) -> Iterator[RowBatch]:
        """Read rows start..stop-1 in batches; see Cursor.read."""
        for (index, first, last), offset in self._layout.overlaps(start, stop):
            file = self._facts[index]
            with reading(file.path):
                for row, batch in self._file_rows(index).read(first, last):
                    yield RowBatch(offset + row, batch)
                # To ask a remote file system takes as long as to read: not after each of many short reads.
                if self._files.filesystem is None or time.monotonic() - self._looked > _LOOK_SECONDS:
                    self._check_unchanged(index)

    def _check_unchanged(self, index: int) -> None:
        self._looked = time.monotonic()
        file = self._facts[index]
        if self._files.state(file.path) == (file.size, file.changed):
            return
        # A copy of the same data may have taken the place of the file that the index recorded.
        found = self._kind.look_at(self._files, file.path) if file.recorded else None
        if found is not None and found.digest == file.digest:
            self._facts[index] = found
        else:
            raise LostInputError(
                f"{file.path} has changed since the job started; put the old file back and run the same command "
                "again, or start a new job"
            )

    def _file_rows(self, index: int) -> Rows:
        """The rows of a file; it is opened, and looked at, if another one is open."""
        if self._open is None or self._open[0] != index:
            self.close()
            self._check_unchanged(index)
            self._open = index, self._kind.open(self._files, self._facts[index], self._schema, self._batch_rows)
        return self._open[1].rows

    def close(self) -> None:
        """Close the open file; see Cursor.close."""
        if self._open is not None:
            self._open[1].close()
            self._open = None


def with_rows(facts: Sequence[FileFacts]) -> Sequence[FileFacts]:
    """The files that tell the columns of an input: those without rows count only where no file has any."""
    return [one for one in facts if one.num_rows] or facts


def _group_starts(row_groups: Sequence[int]) -> Iterator[range]:
    """The rows of a file at which its row groups begin; those of one size that follow each other are one range."""
    row = 0
    for size, same in groupby(row_groups):
        stop = row + size * sum(1 for _ in same)
        if size:
            yield range(row, stop, size)
        row = stop
