"""The content of a compressed page as a stream: of pages that are too large to be held."""

from collections.abc import Callable
from typing import IO, Any

import pyarrow as pa

from run_batch.io.inputs.page_headers import PageError, read_exactly, read_varint

# How far back a copy reaches in what any known encoder of Snappy writes; what is read is dropped in steps of the other.
_WINDOW = 1 << 16
_DROP_BYTES = 1 << 20


class _Limited:
    """The next bytes of a file, as many as a page has."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self._file, self._left, self.closed = file, size, False

    def read(self, size: int = -1) -> bytes:
        """Read up to `size` bytes."""
        content = self._file.read(min(size, self._left) if size >= 0 else self._left)
        self._left -= len(content)
        return content

    def close(self) -> None:
        """Nothing: the file goes on."""


class _Snappy:
    """Decompresses Snappy's raw format, and holds 64 KiB of it."""

    def __init__(self, file: Any) -> None:
        self._file, self._done, self._position = file, bytearray(), 0
        self._left = read_varint(file)

    def read(self, size: int) -> bytes:
        """Read up to `size` bytes."""
        while len(self._done) - self._position < size and self._left > 0:
            before = len(self._done)
            self._element(read_exactly(self._file, 1)[0])
            self._left -= len(self._done) - before
        stop = min(self._position + size, len(self._done))
        content = bytes(memoryview(self._done)[self._position : stop])
        self._position = stop
        if stop > _DROP_BYTES:
            del self._done[: stop - _WINDOW]
            self._position = min(stop, _WINDOW)
        return content

    def _element(self, tag: int) -> None:
        kind, rest = tag & 3, tag >> 2
        if kind == 0:
            extra = max(0, rest - 59)
            length = self._integer(extra) if extra else rest
            self._done += read_exactly(self._file, length + 1)
        elif kind == 1:
            self._copy((tag >> 5) << 8 | self._integer(1), (rest & 7) + 4)
        else:
            self._copy(self._integer(2 if kind == 2 else 4), rest + 1)

    def _integer(self, nbytes: int) -> int:
        return int.from_bytes(read_exactly(self._file, nbytes), "little")

    def _copy(self, offset: int, length: int) -> None:
        start = len(self._done) - offset
        if offset == 0 or start < 0:
            raise PageError("a copy of what is not held")
        source = self._done[start : start + length]
        self._done += (source * (length // len(source) + 1))[:length]


def _arrow(codec: str) -> Callable[[Any], Any]:
    return lambda file: pa.CompressedInputStream(pa.PythonFile(file, "r"), codec)


_STREAMS: dict[str, Callable[[Any], Any]] = {
    "UNCOMPRESSED": lambda file: file,
    "SNAPPY": _Snappy,
    "ZSTD": _arrow("zstd"),
    "GZIP": _arrow("gzip"),
    "BROTLI": _arrow("brotli"),
}
STREAMED_CODECS = frozenset(_STREAMS)


def page_content(file: IO[bytes], compressed_size: int, codec: str) -> IO[bytes]:
    """What a page holds, decompressed while it is read.

    Args:
        file: stands behind the page's header.
        codec: one of `STREAMED_CODECS`.
    """
    stream: IO[bytes] = _STREAMS[codec](_Limited(file, compressed_size))
    return stream
