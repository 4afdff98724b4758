"""What all input formats have in common: the `Source` that knows files and rows, its cursors, batches, and errors.

A process reads on and on through its rows, so a format has one way to read: a `Cursor`, which goes on from where its
last read ended.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pyarrow as pa

from run_batch.io.inputs.input_parts import InputPart
from run_batch.io.secrets import hide_secrets


class InputError(Exception):
    """The input as a whole cannot be read. The message names the file and says what to do; secrets in it are hidden."""

    def __init__(self, message: str) -> None:
        super().__init__(hide_secrets(message))


class DamagedInputError(InputError):
    """A file of the input is empty, truncated or damaged: it stays so until there is another one."""


class LostInputError(InputError):
    """A file of the input was removed or changed after it was opened, or its storage fails."""


class UnreachableInputError(InputError):
    """The storage of the input, or the network to it, fails in a way that may pass."""


@dataclass(frozen=True, slots=True)
class RowBatch:
    """Consecutive rows of the input.

    Attributes:
        start: index of the first row in the whole input, from 0.
        records: the columns asked for.
        row_ids: `FILE:ROW` of each row; None if the rows have an id column, or if ids are not needed.
    """

    start: int
    records: pa.RecordBatch
    row_ids: Sequence[str] | None = None

    @property
    def stop(self) -> int:
        """Index of the last row in the whole input, plus 1."""
        return self.start + self.records.num_rows

    def slice(self, offset: int, length: int) -> "RowBatch":
        """A batch of `length` of these rows, from row `offset` of this batch on; shares their memory."""
        row_ids = None if self.row_ids is None else self.row_ids[offset : offset + length]
        return RowBatch(self.start + offset, self.records.slice(offset, length), row_ids)


class Cursor(Protocol):
    """Reads some columns of a source, on and on: what has been read is not read again while reads go forwards.

    It keeps its file open, and the rest of what it has decoded. It belongs to one thread.
    """

    def read(self, start: int, stop: int) -> Iterator[RowBatch]:
        """Read rows start..stop-1.

        A read that begins behind the last one drops the rows between them, or jumps over them where the source can
        begin later; one that begins before it starts over. Whoever does not exhaust the iterator goes on after the last
        batch that it took.

        Raises:
            DamagedInputError: a file is damaged.
            LostInputError: a file was removed or changed since the source was opened, or its storage fails.
            UnreachableInputError: storage or network fail in a way that may pass, and failed again when tried again.
            InputError: a value does not fit the type that its column has in the source's schema.
        """
        ...

    def close(self) -> None:
        """Close the open file; a later read opens it again."""
        ...


class Source(Protocol):
    """An input: rows in a fixed order that can be read from any row on.

    Attributes:
        schema: columns of the input, each once, and the types in which all batches have them.
        unusable: columns of `schema` that cannot be read, each with the reason, such as a file that lacks it.
        num_rows: number of rows of the whole input.
        folder: the folder that image paths are relative to; None if the input is not on a local file system.
        parts: the files that its rows are in, in the order of the rows.
        index: what is known of its files, for processes that open the same input later; empty where that is little.
    """

    schema: pa.Schema
    unusable: Mapping[str, str]
    num_rows: int
    folder: Path | None

    @property
    def parts(self) -> Sequence[InputPart]: ...

    @property
    def index(self) -> bytes: ...

    def cursor(self, columns: Sequence[str], batch_rows: int) -> Cursor:
        """Make a cursor over `columns`, in this order; a batch has at most `batch_rows` rows, and about 64 MiB."""
        ...

    def starts(self) -> Iterator[range]:
        """The rows at which reading can begin without what lies before them, ascending.

        Those of Parquet are where row groups begin. Equal steps are one range; where any row can be sought, one is all.
        """
        ...

    def row_names(self, start: int, stop: int) -> list[str]:
        """Name rows start..stop-1 by `FILE:ROW`, the ids of rows that have no id column."""
        ...
