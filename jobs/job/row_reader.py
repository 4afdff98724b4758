"""Reads what mapping needs of rows: of whole shards, or of what a resumed run or `--retry-failed` has left of them."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from run_batch.io.inputs.source import RowBatch, Source
from run_batch.jobs.job.columns import needed_columns
from run_batch.jobs.job.config import JobConfig


class RowReader:
    """Reads on and on through the input, by one cursor: a process has one for all its shards."""

    def __init__(self, config: JobConfig, source: Source, batch_rows: int) -> None:
        """Read nothing yet.

        Args:
            batch_rows: rows of a batch at most.
        """
        self._cursor = source.cursor(needed_columns(config, source.schema), batch_rows)
        self._row_names = source.row_names if config.input.id_column is None else None

    def read(self, rows: Sequence[int]) -> Iterator[RowBatch]:
        """Some rows of the input, in order, in batches of consecutive ones, with row ids where no column has them.

        Args:
            rows: indices in the input, ascending.

        Raises:
            InputError: a file is damaged or has gone.
        """
        for run in _runs(rows):
            for batch in self._cursor.read(run.start, run.stop):
                if self._row_names is not None:
                    batch = replace(batch, row_ids=self._row_names(batch.start, batch.stop))
                yield batch

    def close(self) -> None:
        """Close the file that is open."""
        self._cursor.close()


def _runs(rows: Sequence[int]) -> Iterator[range]:
    """The consecutive ones among some rows."""
    if isinstance(rows, range):
        yield rows
        return
    begin = 0
    for i in range(1, len(rows) + 1):
        if i == len(rows) or rows[i] != rows[i - 1] + 1:
            yield range(rows[begin], rows[i - 1] + 1)
            begin = i
