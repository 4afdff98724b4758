"""Reads the rows of one Parquet file, in batches that are limited in bytes too: of large images, some are gigabytes.

Where pages are large as well, their values are read one by one; see large_pages.py.

pyarrow converts no struct or list column of more than 2 GiB in one batch ("Nested data conversions not implemented for
chunked array outputs").
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from run_batch.io.inputs.large_pages import Cell, Leaf, LeafValues, large_leaves, leaf_array, with_children
from run_batch.io.inputs.page_headers import PageError

_BATCH_BYTES = 64 << 20


def read_group(
    parquet: pq.ParquetFile, group: int, columns: Sequence[str], batch_rows: int, open_file: Callable[[], Any]
) -> Iterator[pa.RecordBatch]:
    """The rows of a row group in batches of at most `batch_rows`, and of about 64 MiB or one row.

    Args:
        open_file: opens the file anew.
    """
    rows = min(batch_rows, rows_within(_BATCH_BYTES, parquet.metadata.row_group(group), columns))
    given = 0
    leaves = large_leaves(parquet, group, columns, open_file)
    if leaves:
        try:
            for batch in _read_values(parquet, group, columns, rows, leaves, open_file):
                given += batch.num_rows
                yield batch
            return
        except (PageError, pa.ArrowNotImplementedError):
            pass  # by pyarrow, from the row after
    while True:
        skipped = 0
        try:
            batches = parquet.iter_batches(
                batch_size=rows, row_groups=[group], columns=list(columns), use_threads=False
            )
            for batch in batches:
                begin = min(given - skipped, batch.num_rows)
                skipped += begin
                if begin < batch.num_rows:
                    yield batch.slice(begin)
                    skipped += batch.num_rows - begin
                    given = skipped
            return
        # Values that are stored once and repeated take more than the file tells.
        except pa.ArrowNotImplementedError:
            if rows == 1:
                raise
            rows = max(1, rows // 4)


def rows_within(nbytes: int, group: pq.RowGroupMetaData, columns: Sequence[str]) -> int:
    """How many rows of a row group take about `nbytes` in some columns; at least one."""
    chunks = [group.column(i) for i in range(group.num_columns)]
    used = sum(c.total_uncompressed_size for c in chunks if c.path_in_schema.split(".")[0] in columns)
    return max(1, nbytes * group.num_rows // max(used, 1))


def _read_values(
    parquet: pq.ParquetFile,
    group: int,
    columns: Sequence[str],
    rows: int,
    leaves: Sequence[Leaf],
    open_file: Callable[[], Any],
) -> Iterator[pa.RecordBatch]:
    """The rows of a row group, with some leaves that are read value by value.

    Raises:
        PageError: a leaf cannot be read so.
    """
    metadata = parquet.metadata.row_group(group)
    missing = metadata.num_rows
    rest = _Rest(parquet, group, _other_leaves(parquet.schema_arrow, columns, leaves), rows)
    with ExitStack() as opened:
        values = [
            opened.enter_context(closing(LeafValues(metadata.column(leaf.column), leaf.max_level, open_file)))
            for leaf in leaves
        ]
        while missing > 0:
            batch = _next_batch(parquet.schema_arrow, columns, leaves, _take(values, min(rows, missing)), rest)
            missing -= batch.num_rows
            yield batch


def _other_leaves(schema: pa.Schema, columns: Sequence[str], leaves: Sequence[Leaf]) -> list[str]:
    """What pyarrow reads of some columns."""
    ours = {(leaf.top, leaf.child) for leaf in leaves}
    others = []
    for name in columns:
        if not any(leaf.top == name for leaf in leaves):
            others.append(name)
        elif (name, "") not in ours:
            others += [f"{name}.{child.name}" for child in schema.field(name).type if (name, child.name) not in ours]
    return others


def _take(values: Sequence[LeafValues], rows: int) -> list[list[Cell]]:
    """The cells of the next rows, of each leaf; fewer rows where their values are large."""
    cells: list[list[Cell]] = []
    size = 0
    while len(cells) < rows and size < _BATCH_BYTES:
        cells.append([next(each) for each in values])
        size += sum(len(value or b"") for _, value in cells[-1])
    return cells


def _next_batch(
    schema: pa.Schema, columns: Sequence[str], leaves: Sequence[Leaf], rows: Sequence[Sequence[Cell]], rest: "_Rest"
) -> pa.RecordBatch:
    """Rows put together of the cells of leaves and of what pyarrow reads.

    Args:
        rows: the cells of each row, one for each leaf.
    """
    cells, read = list(zip(*rows, strict=True)), rest.take(len(rows))
    arrays = []
    for name in columns:
        field, own = schema.field(name), [i for i, leaf in enumerate(leaves) if leaf.top == name]
        position = read.schema.get_field_index(name) if read is not None else -1
        others = read.column(position) if read is not None and position >= 0 else None
        if not own:
            arrays.append(others)
        elif not leaves[own[0]].child:
            arrays.append(leaf_array(field.type, cells[own[0]]))
        else:
            children = {leaves[i].child: leaf_array(leaves[i].type_in(field), cells[i]) for i in own}
            arrays.append(with_children(field, others, children, [level for level, _ in cells[own[0]]]))
    return pa.RecordBatch.from_arrays(arrays, schema=pa.schema([schema.field(name) for name in columns]))


class _Rest:
    """The leaves of a row group that pyarrow reads, in as many rows as are asked for."""

    def __init__(self, parquet: pq.ParquetFile, group: int, names: Sequence[str], rows: int) -> None:
        read = parquet.iter_batches(batch_size=rows, row_groups=[group], columns=list(names), use_threads=False)
        self._batches: Iterator[pa.RecordBatch] = iter(read if names else ())
        self._names, self._left = names, pa.RecordBatch.from_pylist([])

    def take(self, rows: int) -> pa.RecordBatch | None:
        """The next rows; None where there are no leaves."""
        if not self._names:
            return None
        taken: list[pa.RecordBatch] = []
        while rows > 0:
            if self._left.num_rows == 0:
                following = next(self._batches, None)
                if following is None:
                    raise PageError("fewer rows in other columns")
                self._left = following
            taken.append(self._left.slice(0, rows))
            self._left = self._left.slice(taken[-1].num_rows)
            rows -= taken[-1].num_rows
        return taken[0] if len(taken) == 1 else pa.concat_batches(taken)
