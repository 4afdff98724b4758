"""What a row of the input is, what every kind of input can do, and how input can be bad."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pyarrow as pa

from run_batch.io.secrets import hide_secrets


class InputError(Exception):
    """The input as a whole cannot be read; the message names the file and what to do, without secrets of its URL."""

    def __init__(self, message: str) -> None:
        super().__init__(hide_secrets(message))


class DamagedInputError(InputError):
    """It was a good input once: a file is cut off or damaged, has gone, or has changed since it was opened."""


@dataclass(frozen=True, slots=True)
class RowBatch:
    """Consecutive rows of the input.

    Attributes:
        start: index of the first row in the whole input, from 0.
        records: the columns asked for.
        row_ids: `FILE:ROW` of each row; None where the rows have an id column, or nobody needs their ids.
    """

    start: int
    records: pa.RecordBatch
    row_ids: Sequence[str] | None = None

    @property
    def stop(self) -> int:
        """Index of the last row in the whole input, plus 1."""
        return self.start + self.records.num_rows

    def slice(self, offset: int, length: int) -> "RowBatch":
        """`length` of its rows, from its row `offset` on."""
        row_ids = None if self.row_ids is None else self.row_ids[offset : offset + length]
        return RowBatch(self.start + offset, self.records.slice(offset, length), row_ids)


class Source(Protocol):
    """Rows in a fixed order, readable from any row on.

    Attributes:
        schema: columns and types of the input.
        num_rows: rows in the whole input.
        folder: where relative image paths start; None for an input that is not on this machine's file systems.
        fingerprint: changes when the input's files change.
    """

    schema: pa.Schema
    num_rows: int
    folder: Path | None
    fingerprint: str

    def read(self, start: int, stop: int, columns: Sequence[str], batch_rows: int) -> Iterator[RowBatch]:
        """Rows start..stop-1 in batches of at most `batch_rows`, without reading what is not asked for.

        Raises:
            DamagedInputError: a file is damaged, has gone, or has changed.
        """
        ...

    def row_names(self, start: int, stop: int) -> list[str]:
        """`FILE:ROW` of each row: its id where the job names no id column."""
        ...


def is_bare_name(name: str) -> bool:
    """Whether readers of data sets take a file of this name for data (`_SUCCESS`, `.crc` and the like are not)."""
    return not name.startswith(("_", "."))
