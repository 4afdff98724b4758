"""What all input formats have in common: batches of rows, the `Source` that yields them, and its errors."""

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
    """A file of the input is truncated or damaged, or was removed or changed after it was opened."""


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


class Source(Protocol):
    """An input: rows in a fixed order that can be read from any row on.

    Attributes:
        schema: columns of the input, each once, and the types in which all batches have them.
        unusable: columns of `schema` that cannot be read, each with the reason, such as a file that lacks it.
        num_rows: number of rows of the whole input.
        folder: the folder that image paths are relative to; None if the input is not on a local file system.
        parts: the files that its rows are in, in the order of the rows.
    """

    schema: pa.Schema
    unusable: Mapping[str, str]
    num_rows: int
    folder: Path | None

    @property
    def parts(self) -> Sequence[InputPart]: ...

    def read(self, start: int, stop: int, columns: Sequence[str], batch_rows: int) -> Iterator[RowBatch]:
        """Read rows start..stop-1 in batches of at most `batch_rows`, and of them only `columns`, in this order.

        Raises:
            DamagedInputError: a file is damaged, or was removed or changed since the source was opened.
            InputError: a value does not fit the type that its column has in `schema`.
        """
        ...

    def row_names(self, start: int, stop: int) -> list[str]:
        """Name rows start..stop-1 by `FILE:ROW`, the ids of rows that have no id column."""
        ...
