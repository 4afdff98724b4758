"""Single rows of the input, in order: what a resumed run and `--retry-failed` have left to generate."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

from run_batch.io.inputs.source import RowBatch, Source

# Up to this many rows between two wanted ones are read and dropped: to open the file again costs more.
_MAX_SKIPPED_ROWS = 256


def read_rows(
    source: Source, rows: Sequence[int], columns: Sequence[str], batch_rows: int, with_ids: bool
) -> Iterator[RowBatch]:
    """Some rows of the input, in order, in batches of consecutive ones.

    Args:
        rows: indices in the input, ascending.
        batch_rows: rows of a batch at most.
        with_ids: fill in the batches' row ids, for an input without an id column.

    Raises:
        InputError: a file is damaged or has gone.
    """
    for part in _parts(rows):
        wanted = set(part) if len(part) < part[-1] + 1 - part[0] else None
        for batch in source.read(part[0], part[-1] + 1, columns, batch_rows):
            if with_ids:
                batch = replace(batch, row_ids=source.row_names(batch.start, batch.stop))
            if wanted is None:
                yield batch
            else:
                yield from _only(batch, wanted)


def _parts(rows: Sequence[int]) -> Iterator[Sequence[int]]:
    """Cut `rows` where more than `_MAX_SKIPPED_ROWS` lie between two of them."""
    begin = 0
    for i in range(1, len(rows) + 1):
        if i == len(rows) or rows[i] - rows[i - 1] > _MAX_SKIPPED_ROWS:
            yield rows[begin:i]
            begin = i


def _only(batch: RowBatch, wanted: Collection[int]) -> Iterator[RowBatch]:
    """The wanted rows of a batch, in batches of consecutive ones."""
    begin: int | None = None
    for offset in range(batch.records.num_rows + 1):
        inside = offset < batch.records.num_rows and batch.start + offset in wanted
        if inside and begin is None:
            begin = offset
        elif not inside and begin is not None:
            yield batch.slice(begin, offset - begin)
            begin = None
