"""Files of lines as blocks: consecutive rows of about a MiB, each a place where reading can begin."""

import contextlib
from collections.abc import Iterator

import pyarrow as pa

from run_batch.io.inputs.file_format import FileFacts
from run_batch.io.inputs.input_files import InputFiles
from run_batch.io.inputs.read_errors import unreachable
from run_batch.io.inputs.source import DamagedInputError, InputError
from run_batch.io.inputs.text_stream import TextStream
from run_batch.io.transient import describe, may_pass

_BLOCK_BYTES = 1 << 20


class BlockIndex:
    """The blocks of a file, made of the offsets of its rows."""

    def __init__(self) -> None:
        """There is no row yet."""
        self._rows: list[int] = []
        self._offsets: list[int] = []

    def add(self, offset: int) -> None:
        """Add the next row, which begins at an offset."""
        if not self._rows or offset - self._offsets[-1] >= _BLOCK_BYTES:
            self._rows.append(0)
            self._offsets.append(offset)
        self._rows[-1] += 1

    def ended(self, end: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Number of rows of each block; and where each begins, and the last one ends."""
        return tuple(self._rows), (*self._offsets, end)


@contextlib.contextmanager
def look_at_lines(files: InputFiles, path: str) -> Iterator[tuple[TextStream, int, int]]:
    """Around the first look at a file: it opened, its size in bytes, and the time of its last change.

    Raises:
        InputError: there is no such file, or it cannot be read.
        DamagedInputError: it is truncated or damaged, or has changed meanwhile.
        UnreachableInputError: storage or network fail in a way that may pass.
    """
    try:
        state = files.state(path)
        with TextStream(files, path) as stream:
            yield stream, *state
        if files.state(path) != state:
            raise DamagedInputError(f"input.path: {path} has changed while it was read; run the same command again")
    except FileNotFoundError:
        raise InputError(f"input.path: {path}: no such file") from None
    except (OSError, pa.ArrowException) as error:
        if may_pass(error):
            raise unreachable(f"input.path: {path}", error) from error
        kind = InputError if isinstance(error, PermissionError) else DamagedInputError
        raise kind(f"input.path: {path} cannot be read: {describe(error)}") from error


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
