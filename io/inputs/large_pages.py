"""Rows of Parquet whose pages are too large to be held: their values are decompressed one by one.

pyarrow decompresses whole pages, and keeps a dictionary beside them. It also writes pages of 1,024 rows, however large
these are: with images of 1 MB, whoever reads such a page holds 3 GB. What is read here is what it writes of such
columns: bytes or text, outside of lists, in plain pages or by a dictionary in the order of the rows. All else raises
PageError, and is left to pyarrow.
"""

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from run_batch.io.inputs.page_headers import (
    DATA_PAGE,
    DICTIONARY_PAGE,
    PageError,
    PageHeader,
    read_exactly,
    read_header,
    read_hybrid,
)
from run_batch.io.inputs.page_streams import STREAMED_CODECS, page_content
from run_batch.io.inputs.remote_file import buffered

# pyarrow reads pages up to this size.
LARGE_PAGE = 8 << 20
# More than the header of a page takes, with its statistics.
_HEADER_BYTES = 1 << 14
_PLAIN, _RLE, _DICTIONARY_ENCODINGS = 0, 3, (2, 8)
# What Snappy makes hardly smaller, such as encoded images, is decompressed by Python as fast as it is read.
_LEAST_RATIO = 0.9
# The definition level of a row, and its value; None where it has none.
Cell: TypeAlias = tuple[int, bytes | None]
_TYPES = (pa.binary(), pa.large_binary(), pa.string(), pa.large_string())


@dataclass(frozen=True, slots=True)
class Leaf:
    """A column of values in large pages.

    Attributes:
        column: its index among the leaves of the file.
        top: the column of the table that it is.
        child: the field of the struct in that column; empty where the column is no struct.
        max_level: the definition level of its values.
    """

    column: int
    top: str
    child: str
    max_level: int

    def type_in(self, field: pa.Field) -> pa.DataType:
        """Its type in the struct that is its column."""
        return field.type.field(self.child).type


def large_leaves(parquet: pq.ParquetFile, group: int, names: Sequence[str], open_file: Callable[[], Any]) -> list[Leaf]:
    """The leaves of some columns whose pages in a row group are large, as far as they can be read value by value.

    Args:
        open_file: opens the file; the header of a leaf's first page is read where its values are large.
    """
    metadata = parquet.metadata.row_group(group)
    large = [index for index in range(metadata.num_columns) if _may_be_large(metadata.column(index))]
    leaves = [leaf for index in large if (leaf := _leaf(parquet, index)) and leaf.top in names]
    if not leaves or any("." in name for name in parquet.schema_arrow.names):
        return []
    with closing(open_file()) as file:
        return [leaf for leaf in leaves if _has_large_page(file, metadata.column(leaf.column))]


def _leaf(parquet: pq.ParquetFile, index: int) -> Leaf | None:
    """A leaf of bytes or text that is in no list."""
    column = parquet.schema.column(index)
    top, _, child = column.path.partition(".")
    if column.max_repetition_level > 0 or top not in parquet.schema_arrow.names:
        return None
    kind = parquet.schema_arrow.field(top).type
    if child:
        position = kind.get_field_index(child) if pa.types.is_struct(kind) else -1
        kind = kind.field(position).type if position >= 0 else None
    return Leaf(index, top, child, column.max_definition_level) if kind in _TYPES else None


def _may_be_large(chunk: pq.ColumnChunkMetaData) -> bool:
    if chunk.compression not in STREAMED_CODECS or chunk.total_uncompressed_size <= LARGE_PAGE:
        return False
    return chunk.compression != "SNAPPY" or chunk.total_compressed_size > _LEAST_RATIO * chunk.total_uncompressed_size


def _has_large_page(file: Any, chunk: pq.ColumnChunkMetaData) -> bool:
    if min(_start(chunk), chunk.data_page_offset) < 0:
        return False  # a damaged footer
    file.seek(_start(chunk))
    try:
        return read_header(io.BytesIO(file.read(_HEADER_BYTES))).size > LARGE_PAGE
    except PageError:
        return False


def _start(chunk: pq.ColumnChunkMetaData) -> int:
    offset: int = chunk.dictionary_page_offset if chunk.has_dictionary_page else chunk.data_page_offset
    return offset


class LeafValues:
    """The values of one leaf of a row group, one after the other; a page of them is never held."""

    def __init__(self, chunk: pq.ColumnChunkMetaData, max_level: int, open_file: Callable[[], Any]) -> None:
        """Open nothing yet."""
        self._chunk, self._max_level, self._open_file = chunk, max_level, open_file
        self._opened = ExitStack()
        self._dictionary, self._entry = self._read_dictionary(), (-1, b"")
        self._values = self._read()

    def __next__(self) -> Cell:
        """The cell of the next row.

        Raises:
            PageError: its page is of another form.
        """
        cell = next(self._values, None)
        if cell is None:
            raise PageError("fewer values than rows")
        return cell

    def close(self) -> None:
        """Close the file, which is opened where it is read from."""
        self._opened.close()

    def _open_at(self, start: int, stop: int) -> Any:
        file = self._open_file()
        own = file if isinstance(file, io.BufferedReader) else buffered(file, stop)
        self._opened.enter_context(closing(own)).seek(start)
        return own

    def _read(self) -> Iterator[Cell]:
        position, missing = self._chunk.data_page_offset, self._chunk.num_values
        file = self._open_at(position, _start(self._chunk) + self._chunk.total_compressed_size)
        while missing > 0:
            header = self._header(file, DATA_PAGE)
            if header.num_values > missing:
                raise PageError("more values than the footer counts")
            position = file.tell() + header.compressed_size
            yield from self._page(header, page_content(file, header.compressed_size, self._chunk.compression))
            missing -= header.num_values
            file.seek(position)

    def _header(self, file: Any, kind: int) -> PageHeader:
        header = read_header(file)
        if header.has_checksum:
            raise PageError("the checksum of a page needs all of it")
        if header.kind != kind or header.num_values <= 0:
            raise PageError("another kind of page")
        return header

    def _page(self, header: PageHeader, content: Any) -> Iterator[Cell]:
        levels = np.full(header.num_values, self._max_level)
        if self._max_level > 0:
            if header.level_encoding != _RLE:
                raise PageError("levels in an encoding of old")
            size = int.from_bytes(read_exactly(content, 4), "little")
            levels = read_hybrid(
                io.BytesIO(read_exactly(content, size)), self._max_level.bit_length(), header.num_values
            )
        count = int(np.count_nonzero(levels == self._max_level))
        values = self._page_values(header, content, count)
        for level in levels.tolist():
            yield level, next(values) if level == self._max_level else None

    def _page_values(self, header: PageHeader, content: Any, count: int) -> Iterator[bytes]:
        if header.encoding == _PLAIN:
            for _ in range(count):
                yield _plain_value(content)
        elif header.encoding in _DICTIONARY_ENCODINGS:
            for index in read_hybrid(content, read_exactly(content, 1)[0], count).tolist() if count else ():
                yield self._dictionary_value(index)
        else:
            raise PageError(f"encoding {header.encoding}")

    def _read_dictionary(self) -> Iterator[tuple[int, bytes]]:
        if self._chunk.has_dictionary_page:
            file = self._open_at(self._chunk.dictionary_page_offset, self._chunk.data_page_offset)
            header = self._header(file, DICTIONARY_PAGE)
            content = page_content(file, header.compressed_size, self._chunk.compression)
            for index in range(header.num_values):
                yield index, _plain_value(content)

    def _dictionary_value(self, index: int) -> bytes:
        while self._entry[0] < index:
            try:
                self._entry = next(self._dictionary)
            except StopIteration:
                raise PageError("an index that the dictionary does not have") from None
        if self._entry[0] > index:
            raise PageError("a dictionary in another order than the rows")
        return self._entry[1]


def _plain_value(content: Any) -> bytes:
    return read_exactly(content, int.from_bytes(read_exactly(content, 4), "little"))


def leaf_array(kind: pa.DataType, cells: Sequence[Cell]) -> pa.Array:
    """The values of cells in a type of bytes or text."""
    values = [value for _, value in cells]
    ends = np.cumsum([0, *(len(value or b"") for value in values)])
    offsets = ends.astype(np.int64 if kind in (pa.large_binary(), pa.large_string()) else np.int32)
    content = pa.py_buffer(b"".join(value for value in values if value is not None))
    is_there = _bitmap([value is not None for value in values])
    return pa.Array.from_buffers(kind, len(values), [is_there, pa.py_buffer(offsets), content])


def _bitmap(flags: Sequence[bool]) -> pa.Buffer:
    # Not by pa.array, which imports pandas for 40 MB.
    return pa.py_buffer(np.packbits(np.array(flags, bool), bitorder="little"))


def with_children(
    field: pa.Field, rest: pa.Array | None, children: Mapping[str, pa.Array], levels: Sequence[int]
) -> pa.Array:
    """A struct column, put together.

    Args:
        rest: the column with the fields that pyarrow has read; None if there are none.
        children: the other fields.
        levels: the definition level of each row.
    """
    read = {child.name: rest.field(index) for index, child in enumerate(rest.type)} if rest is not None else {}
    arrays = [children.get(child.name, read.get(child.name)) for child in field.type]
    is_there = _bitmap([level > 0 for level in levels]) if field.nullable else None
    return pa.Array.from_buffers(field.type, len(levels), [is_there], children=arrays)
