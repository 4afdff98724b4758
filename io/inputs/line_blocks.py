"""Files of lines as blocks: consecutive rows of about a MiB, each a place where reading can begin."""

import contextlib
from collections.abc import Iterator

import pyarrow as pa

from run_batch.io.inputs.file_format import FileFacts
from run_batch.io.inputs.first_look import looking_at
from run_batch.io.inputs.input_files import InputFiles
from run_batch.io.inputs.text_stream import TextStream

_BLOCK_BYTES = 1 << 20  # of lines; within a block, they are parsed from its beginning on


class BlockIndex:
    """The blocks of a file, made of the offsets of its rows."""

    def __init__(self, block_bytes: int | None = None) -> None:
        """There is no row yet."""
        self._block_bytes = block_bytes or _BLOCK_BYTES
        self._rows: list[int] = []
        self._offsets: list[int] = []

    def add(self, offset: int) -> None:
        """Add the next row, which begins at an offset."""
        if not self._rows or offset - self._offsets[-1] >= self._block_bytes:
            self._rows.append(0)
            self._offsets.append(offset)
        self._rows[-1] += 1

    def ended(self, end: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Number of rows of each block; and where each begins, and the last one ends."""
        return tuple(self._rows), (*self._offsets, end)


@contextlib.contextmanager
def look_at_lines(files: InputFiles, path: str) -> Iterator[tuple[TextStream, int, int]]:
    """Around the first look at a file of lines: it opened, its size in bytes, and the time of its last change.

    Raises the errors of `looking_at`.
    """
    with looking_at(files, path) as state, TextStream(files, path) as stream:
        yield stream, *state


def read_block(stream: TextStream, facts: FileFacts, block: int) -> bytes:
    """The bytes of a block.

    Raises:
        OSError, pa.ArrowException, InputError: they cannot be read, or are not there any more.
    """
    start, stop = facts.offsets[block : block + 2]
    stream.seek(start)
    content = stream.read(stop - start)
    if len(content) < stop - start:
        raise pa.ArrowInvalid(f"it ends at byte {start + len(content):,} of {facts.offsets[-1]:,}")
    return content
