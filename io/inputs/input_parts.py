"""Which rows of which files make an input, in order: by this, two inputs are compared without reading their rows."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple


class InputPart(NamedTuple):
    """Consecutive rows of one file.

    Attributes:
        file: its path relative to the root of the input, which row ids begin with; of a data set, the split.
        digest: of the whole file, in hexadecimal; differs when its data differs.
        first: the first of these rows, counted in the file.
        rows: number of these rows.
    """

    file: str
    digest: str
    first: int
    rows: int


def first_rows(parts: Iterable[InputPart], rows: int) -> Iterator[InputPart]:
    """The first `rows` rows of an input."""
    for part in parts:
        if rows <= 0:
            return
        yield part._replace(rows=min(part.rows, rows))
        rows -= part.rows
