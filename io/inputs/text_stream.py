"""The bytes of a text file from any offset on, decompressed, and the lines in them with their offsets."""

import contextlib
from collections.abc import Iterator
from types import TracebackType
from typing import Any

import pyarrow as pa

from run_batch.io.inputs.input_files import InputFiles
from run_batch.io.inputs.source import InputError

# What is read at once; remote, a request costs the time of megabytes.
_LOCAL_BYTES = 1 << 20
_REMOTE_BYTES = 8 << 20
# A row may hold 128 MiB of encoded images, which are a third longer in base64.
_LONGEST_LINE = 512 << 20
_COMPRESSIONS = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bz2"}
BOM = b"\xef\xbb\xbf"


class TextStream:
    """An open text file. Of a compressed one, offsets are those in the text; to go back is to decompress it anew."""

    def __init__(self, files: InputFiles, path: str) -> None:
        """Open the file.

        Raises:
            OSError, InputError: it cannot be opened.
        """
        self._files, self._path = files, path
        self._step = _REMOTE_BYTES if files.filesystem else _LOCAL_BYTES
        self._file = files.open(path)
        head = self._file.read(4)
        found = (name for magic, name in _COMPRESSIONS.items() if head.startswith(magic))
        self._compression = next(found, None)
        self._stream: Any = None
        self._position = 0
        self.seek(0)

    def __enter__(self) -> "TextStream":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def is_seekable(self) -> bool:
        """Whether to read from an offset on costs nothing before it."""
        return self._compression is None

    def seek(self, offset: int) -> None:
        """Go to an offset.

        Raises:
            OSError, pa.ArrowException, InputError: the file cannot be read.
        """
        if self._compression is None:
            self._file.seek(offset)
        else:
            if self._stream is None or offset < self._position:
                self._begin_anew(self._compression)
            while self._position < offset and self.read(min(self._step, offset - self._position)):
                pass
        self._position = offset

    def _begin_anew(self, compression: str) -> None:
        self.close()  # whatever decompresses a file closes it with itself
        self._file = self._files.open(self._path)
        self._stream, self._position = pa.CompressedInputStream(pa.PythonFile(self._file, "r"), compression), 0

    def read(self, size: int) -> bytes:
        """Read up to `size` bytes, fewer only at the end; raises the errors of `seek`."""
        content: bytes = (self._stream or self._file).read(size)
        self._position += len(content)
        return content

    def lines(self, offset: int) -> Iterator[tuple[int, bytes]]:
        """The lines from an offset on, each with its own offset, and with its line feed if it has one.

        Raises:
            OSError, pa.ArrowException, InputError: the file cannot be read, or a line is longer than 512 MiB.
        """
        self.seek(offset)
        rest: list[bytes] = []
        while content := self.read(self._step):
            *whole, last = content.split(b"\n")
            for line in whole:
                rest.append(line + b"\n")
                line = b"".join(rest) if len(rest) > 1 else rest[0]
                rest.clear()
                yield offset, line
                offset += len(line)
            rest.append(last)
            if sum(map(len, rest)) > _LONGEST_LINE:
                raise InputError(
                    f"input.path: {self._path} has a line of more than {_LONGEST_LINE >> 20} MiB at byte {offset:,}; a "
                    "row is a line"
                )
        if any(rest):
            yield offset, b"".join(rest)

    def line_number(self, offset: int) -> int:
        """The number of the line that begins at an offset, from 1; to count them, the file is read up to there."""
        self.seek(0)
        number = 1
        while offset > 0 and (content := self.read(min(self._step, offset))):
            number, offset = number + content.count(b"\n"), offset - len(content)
        return number

    def close(self) -> None:
        """Close the file."""
        self._stream = None
        with contextlib.suppress(OSError):
            self._file.close()
