"""CSV and TSV files: a row is a record, whose cells are text as it is written; an empty cell is null.

No cell is taken for a number or a date: `007` stays what it is.
"""

import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import Any

import blake3
import pyarrow as pa

from run_batch.io.inputs.columns import Columns
from run_batch.io.inputs.file_content import as_utf8, check_is
from run_batch.io.inputs.file_format import FileFacts, OpenFile
from run_batch.io.inputs.file_rows import FileRows
from run_batch.io.inputs.first_look import look_at_each
from run_batch.io.inputs.input_files import InputFiles
from run_batch.io.inputs.line_blocks import BlockIndex, look_at_lines, read_block
from run_batch.io.inputs.partitions import columns_of_files, constants_of, repeated
from run_batch.io.inputs.source import InputError
from run_batch.io.inputs.text_stream import BOM, TextStream

# A quote that is never closed would make one cell of all that follows.
_LARGEST_CELL = 256 << 20
_QUOTED = re.compile(r'"[^"]*"')
_PACKED = ("", ".gz", ".zst", ".bz2")


class CsvFormat:
    """Files of CSV or TSV, whose first line names the columns; see FileFormat."""

    name = "CSV"
    suffixes = tuple(f"{kind}{packed}" for kind in (".csv", ".tsv") for packed in _PACKED)

    def look_at_all(self, files: InputFiles) -> list[FileFacts]:
        """Parse all files."""
        return look_at_each(files, self.look_at)

    def look_at(self, files: InputFiles, path: str) -> FileFacts:
        """Parse a file; an error names the line."""
        with look_at_lines(files, path) as (stream, size, changed):
            check_is("csv", "CSV", path, stream.read(512))
            records = _Records(stream, path)
            header = records.header()
            index = BlockIndex()
            for offset, _ in records.rows(len(header)):
                index.add(offset)
            groups, offsets = index.ended(records.offset)
            schema = pa.schema([(name, pa.string()) for name in header])
            digest = records.digest.hexdigest()
            name = files.name(path)
            return FileFacts(path, name, size, changed, schema, groups, digest, offsets, stream.is_seekable)

    def dump_content(self, _: Any) -> Any:
        """See LookedAtOnce.dump_content."""
        return None

    def load_content(self, _: Any) -> Any:
        """See LookedAtOnce.load_content."""
        return None

    def columns(self, facts: Sequence[FileFacts]) -> Columns:
        """The columns of all files, and those that names of folders make."""
        return columns_of_files(facts)

    def open(self, files: InputFiles, facts: FileFacts, schema: pa.Schema, batch_rows: int) -> OpenFile:
        """Open a file to read it block by block."""
        stream = TextStream(files, facts.path)
        records = _Records(stream, facts.path)
        header = records.header()
        constants = constants_of(facts.name, header)
        own = [name for name in schema.names if name not in constants]
        if any(header.count(name) != 1 for name in own):
            raise pa.ArrowInvalid(f"its first line names other columns than {', '.join(own)}")
        places, delimiter = {name: header.index(name) for name in own}, records.delimiter

        def read(group: int) -> Iterator[pa.RecordBatch]:
            try:
                lines = read_block(stream, facts, group).decode().split("\n")
                rows = filter(None, csv.reader((f"{line}\n" for line in lines), delimiter=delimiter, strict=True))
                while some := list(islice(rows, batch_rows)):
                    yield _batch(some, places, constants, schema)
            except (UnicodeDecodeError, csv.Error, IndexError) as error:  # it was CSV when it was looked at
                raise pa.ArrowInvalid(str(error)) from None

        return OpenFile(FileRows(facts.row_groups, read), stream.close)


def _batch(
    rows: Sequence[Sequence[str]], places: Mapping[str, int], constants: Mapping[str, str | None], schema: pa.Schema
) -> pa.RecordBatch:
    """Rows as columns: some of their cells, and values that are the same in all of them."""

    def column(name: str) -> pa.Array:
        if name in constants:
            return repeated(constants[name], len(rows))
        place = places[name]
        return pa.array([row[place] or None for row in rows], pa.string())

    return pa.RecordBatch.from_arrays([column(name) for name in schema.names], schema=schema)


class _Records:
    """The records of a file from its beginning on, with the offset at which each begins."""

    def __init__(self, stream: TextStream, path: str) -> None:
        """Read nothing yet."""
        csv.field_size_limit(_LARGEST_CELL)
        self._stream, self._path = stream, path
        self.digest = blake3.blake3()
        self.delimiter = ","
        self.offset = self._line = 0
        self._lines = self._text()

    def _text(self) -> Iterator[str]:
        """The lines as text; `offset` is where the next one begins."""
        for offset, line in self._stream.lines(0):
            self._line += 1
            self.digest.update(line)
            self.offset = offset + len(line)
            try:
                text = (line if offset else line.removeprefix(BOM)).decode()
            except UnicodeDecodeError as error:
                raise InputError(
                    f"input.path: {self._path}, line {self._line:,}: text that is not UTF-8 (byte {error.start}); "
                    f"{as_utf8(self._path)}"
                ) from None
            yield text

    def header(self) -> list[str]:
        """The names of the columns."""
        first = next((line for line in self._lines if line.strip()), None)
        if first is None:
            raise InputError(f"input.path: {self._path} is empty; its first line has to name the columns")
        if self._path.lower().rsplit(".tsv", 1)[-1] in _PACKED and ".tsv" in self._path.lower():
            self.delimiter = "\t"
        else:
            unquoted = _QUOTED.sub("", first)
            self.delimiter = next((sign for sign in ",\t;|" if sign in unquoted), ",")
        self._lines = chain([first], self._lines)
        return next(self._parsed())

    def rows(self, columns: int) -> Iterator[tuple[int, list[str]]]:
        """The rows, each with the offset at which it begins."""
        offset, line = self.offset, self._line + 1
        for row in self._parsed():
            if len(row) != columns and row:
                raise InputError(
                    f"input.path: {self._path}, line {line:,}: {len(row)} cells, where the first line names {columns}; "
                    f"a cell with {self.delimiter!r} or a line break in it needs quotes"
                )
            if row:
                yield offset, row
            offset, line = self.offset, self._line + 1

    def _parsed(self) -> Iterator[list[str]]:
        begin = self._line + 1
        reader = csv.reader(self._lines, delimiter=self.delimiter, strict=True)
        while True:
            try:
                row = next(reader, None)
            except csv.Error as error:
                raise InputError(f"input.path: {self._path}, line {begin:,}: not CSV: {error}") from None
            if row is None:
                return
            yield row
            begin = self._line + 1
