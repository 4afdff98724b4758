"""What a page of a Parquet file says before its values: its header, and levels and indices in their hybrid encoding."""

from dataclasses import dataclass
from typing import IO, Any

import numpy as np

# Types of fields in Thrift's compact protocol.
_STOP, _TRUE, _FALSE, _I8, _DOUBLE, _BINARY, _LIST, _SET, _STRUCT = 0, 1, 2, 3, 7, 8, 9, 10, 12
_INTEGERS = (4, 5, 6)
# Fields of PageHeader, in parquet.thrift, and of the headers in it.
_TYPE, _UNCOMPRESSED_SIZE, _COMPRESSED_SIZE, _CRC, _DATA_HEADER, _DICTIONARY_HEADER = 1, 2, 3, 4, 5, 7
_NUM_VALUES, _ENCODING, _LEVEL_ENCODING = 1, 2, 3
DATA_PAGE, DICTIONARY_PAGE = 0, 2


class PageError(Exception):
    """A page is of a form that this does not read, or is damaged."""


@dataclass(frozen=True, slots=True)
class PageHeader:
    """The header of one page.

    Attributes:
        kind: `DATA_PAGE` (version 1), `DICTIONARY_PAGE`, or another one.
        size: bytes of what it holds, decompressed.
        compressed_size: bytes that follow the header.
        num_values: values in it, nulls too.
        encoding: of the values, by its number in parquet.thrift.
        level_encoding: of their definition levels; -1 in a dictionary.
        has_checksum: whether it has a checksum.
    """

    kind: int
    size: int
    compressed_size: int
    num_values: int
    encoding: int
    level_encoding: int
    has_checksum: bool


def read_header(file: IO[bytes]) -> PageHeader:
    """Read the header of the page that a file is at.

    Raises:
        PageError: there is none.
    """
    fields = _read_struct(file)
    inner = fields.get(_DATA_HEADER) or fields.get(_DICTIONARY_HEADER) or {}
    kind, size, compressed = (fields.get(number, -1) for number in (_TYPE, _UNCOMPRESSED_SIZE, _COMPRESSED_SIZE))
    if min(kind, size, compressed) < 0:
        raise PageError("no page header")
    num_values, encoding = inner.get(_NUM_VALUES, 0), inner.get(_ENCODING, -1)
    level_encoding = inner.get(_LEVEL_ENCODING, -1) if _DATA_HEADER in fields else -1
    return PageHeader(kind, size, compressed, num_values, encoding, level_encoding, _CRC in fields)


def _read_struct(file: IO[bytes]) -> dict[int, Any]:
    fields: dict[int, Any] = {}
    number = 0
    while (head := _byte(file)) != _STOP:
        step, kind = head >> 4, head & 15
        number = number + step if step else _zigzag(read_varint(file))
        fields[number] = kind == _TRUE if kind in (_TRUE, _FALSE) else _read_value(file, kind)
    return fields


def _read_value(file: IO[bytes], kind: int) -> Any:
    if kind in _INTEGERS:
        return _zigzag(read_varint(file))
    if kind == _BINARY:
        return read_exactly(file, read_varint(file))
    if kind == _STRUCT:
        return _read_struct(file)
    if kind in (_TRUE, _FALSE, _I8):
        return _byte(file)
    if kind == _DOUBLE:
        return read_exactly(file, 8)
    if kind in (_LIST, _SET):
        head = _byte(file)
        count = head >> 4 if head >> 4 < 15 else read_varint(file)
        return [_read_value(file, head & 15) for _ in range(count)]
    raise PageError(f"a field of type {kind} in a page header")


def read_exactly(file: IO[bytes], count: int) -> bytes:
    """Read so many bytes.

    Raises:
        PageError: the file ends before.
    """
    content = file.read(count)
    if len(content) < count:
        raise PageError("the file ends within a page")
    return content


def read_varint(file: IO[bytes]) -> int:
    """Read an integer of variable length, of at most 64 bits."""
    value = 0
    for shift in range(0, 64, 7):
        byte = _byte(file)
        value |= (byte & 127) << shift
        if byte < 128:
            return value
    raise PageError("an integer of more than 64 bits")


def _byte(file: IO[bytes]) -> int:
    return read_exactly(file, 1)[0]


def _zigzag(value: int) -> int:
    return (value >> 1) ^ -(value & 1)


def read_hybrid(file: IO[bytes], width: int, count: int) -> np.ndarray:
    """Read integers of `width` bits that are run-length encoded or packed by turns.

    Returns:
        int64 of shape (count,).
    """
    runs: list[np.ndarray] = []
    missing = count
    while missing > 0:
        head = read_varint(file)
        if head & 1:
            packed = np.frombuffer(read_exactly(file, (head >> 1) * width), np.uint8)
            bits = np.unpackbits(packed, bitorder="little").reshape(-1, max(width, 1))[:missing]
            values = bits @ (1 << np.arange(width, dtype=np.int64))
        else:
            value = int.from_bytes(read_exactly(file, (width + 7) // 8), "little")
            values = np.full(min(head >> 1, missing), value, np.int64)
        if not len(values):
            raise PageError("a run of no values")
        runs.append(values)
        missing -= len(values)
    return np.concatenate(runs) if runs else np.empty(0, np.int64)
