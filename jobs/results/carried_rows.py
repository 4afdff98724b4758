"""Ids, carried columns and expected texts of shards, read once in whatever order the shards become whole."""

from collections.abc import Callable, Iterator, Sequence

import pyarrow as pa

from run_batch.io.inputs.source import Source
from run_batch.io.outputs.shard_file import ROW_GROUP_BYTES
from run_batch.jobs.job.plan import Plan

# Rows of the input that are read at once.
_BATCH_ROWS = 1024
# Shards become whole slightly out of order: so many rows before one are read too, and kept until their turn comes.
_ROWS_BEHIND = 1 << 14
_KEPT_BYTES = 128 << 20


class CarriedRows:
    """Columns of shards, read by a cursor of its own.

    To go back costs the front of a row group. A shard that is passed over is kept instead, up to 128 MiB of them. Of a
    shard that is read, as much is held as is in one table.
    """

    def __init__(
        self, source: Source, plan: Plan, columns: Sequence[str], first: int, is_wanted: Callable[[int], bool]
    ) -> None:
        """Read nothing yet.

        Args:
            first: the shard that is likely to be asked for first.
            is_wanted: whether a shard that is passed over may be asked for later.
        """
        self._cursor, self._plan, self._is_wanted = source.cursor(columns, _BATCH_ROWS), plan, is_wanted
        self._next = first
        self._kept: dict[int, pa.Table] = {}
        self._kept_bytes = 0

    def read(self, shard: int) -> Iterator[pa.Table]:
        """The columns of a shard: one table, or several, each as large as a row group or of one batch that is larger.

        Raises:
            InputError: the input cannot be read.
        """
        if shard in self._kept:
            yield self._take(shard)
            return
        behind = range(self._next, shard)
        if self._plan.rows_in(behind) <= _ROWS_BEHIND:
            for passed in behind:
                if passed not in self._kept and self._is_wanted(passed):
                    self._keep(passed)
        self._next = shard + 1
        yield from self._read(shard)

    def close(self) -> None:
        """Close the file that is open."""
        self._cursor.close()

    def _read(self, shard: int) -> Iterator[pa.Table]:
        rows = self._plan.rows(shard)
        batches: list[pa.RecordBatch] = []
        size = 0
        for batch in self._cursor.read(rows.start, rows.stop):
            if batches and size + batch.records.nbytes > ROW_GROUP_BYTES:
                yield _taken(batches)
                size = 0
            batches.append(batch.records)
            size += batch.records.nbytes
        yield _taken(batches)

    def _keep(self, shard: int) -> None:
        table = next(tables := self._read(shard))
        if next(tables, None) is not None:
            return  # more than may be kept
        # A copy: a slice would keep all rows that were read with it.
        self._kept[shard] = _copy(table)
        self._kept_bytes += self._kept[shard].nbytes
        while self._kept_bytes > _KEPT_BYTES:
            self._take(next(iter(self._kept)))

    def _take(self, shard: int) -> pa.Table:
        table = self._kept.pop(shard)
        self._kept_bytes -= table.nbytes
        return table


def _taken(batches: list[pa.RecordBatch]) -> pa.Table:
    """The batches of a list as a table; nothing else holds them then."""
    table = pa.Table.from_batches(batches)
    batches.clear()
    return table


def _copy(table: pa.Table) -> pa.Table:
    """The same rows in memory of their own, whatever their types: `take` knows no views."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    return pa.ipc.open_stream(sink.getvalue()).read_all()
