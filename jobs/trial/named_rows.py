"""Finds rows of the input by their ids: values of the id column, or `FILE:ROW` where the job names none."""

from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from run_batch.jobs.job.errors import JobError
from run_batch.jobs.job.prepare import PreparedJob

# Rows whose ids are compared at once.
_BATCH_ROWS = 1 << 16


def find_rows(job: PreparedJob, ids: Sequence[str]) -> list[int]:
    """The rows that have these ids, ascending.

    An id column has no index: that column is read, no other, from the first row up to the last one that is found.

    Raises:
        JobError: a row of the job has no such id.
        InputError: the input cannot be read.
    """
    wanted = {row_id.encode("utf-8", "surrogateescape") for row_id in ids}
    found: dict[bytes, int] = {}
    for start, values in _ids(job):
        hits = pc.indices_nonzero(pc.is_in(values, pa.array(sorted(wanted - found.keys()), pa.binary())))
        for offset in hits.to_pylist():
            found.setdefault(values[offset].as_py(), start + offset)
        if len(found) == len(wanted):
            return sorted(found.values())
    where = f"column {job.config.input.id_column}" if job.config.input.id_column else "the input"
    missing, first = (id_text(min(wanted - found.keys())), id_text(next(_ids(job))[1][0].as_py()))
    raise JobError(f"--row {missing!r}: {where} has no row with this id; the first row's is {first!r}")


def id_text(row_id: bytes | None) -> str:
    """An id as text, whatever its bytes are."""
    return "null" if row_id is None else row_id.decode("utf-8", "backslashreplace")


def _ids(job: PreparedJob) -> Iterator[tuple[int, pa.Array]]:
    """The ids of the job's rows as bytes, each array with the index of its first row."""
    column, num_rows = job.config.input.id_column, job.plan.num_rows
    if column is not None:
        for batch in job.source.cursor([column], _BATCH_ROWS).read(0, num_rows):
            yield batch.start, id_bytes(batch.records.column(0), column)
        return
    for start in range(0, num_rows, _BATCH_ROWS):
        names = job.source.row_names(start, min(start + _BATCH_ROWS, num_rows))
        yield start, id_bytes(pa.array(names, pa.string()), None)


def id_bytes(column: pa.Array, name: str | None) -> pa.Array:
    """Ids as the results have them, as bytes: Arrow does not check that text from files is UTF-8.

    Args:
        name: of the column, for messages.

    Raises:
        JobError: no ids can be made of the column's values.
    """
    try:
        return column.cast(pa.string()).cast(pa.binary())
    except pa.ArrowException as error:
        raise JobError(f"input.id_column {name}: {error}") from None
