"""The id column of a job: every row has an id, no two rows have the same one, and all are UTF-8."""

from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from run_batch.io.inputs.source import InputError, Source
from run_batch.jobs.job.config import JobConfig
from run_batch.jobs.job.errors import JobError, input_failed
from run_batch.jobs.job.plan import Plan

_BATCH_ROWS = 1 << 16


def check_ids(config: JobConfig, source: Source, plan: Plan) -> None:
    """Check that the id column has one value for each row, and no value twice.

    Raises:
        JobError: names the first value that is null, not UTF-8 or there twice, and its row.
        RunError: the input is damaged, or cannot be reached.
    """
    import numpy as np

    column = config.input.id_column
    if column is None:
        return
    try:
        hashes = [_hash(_checked(ids, start, column)) for start, ids in _read(source, plan, column)]
        values, counts = np.unique(np.concatenate(hashes), return_counts=True)
        if len(values) < plan.num_rows:
            _refuse_repeated(column, set(values[counts > 1].tolist()), _read(source, plan, column))
    except InputError as error:
        raise input_failed(error, f"input.id_column {column}: ") from error
    except pa.ArrowException as error:
        raise JobError(f"input.id_column {column}: {error}") from None


def _read(source: Source, plan: Plan, column: str) -> Iterator[tuple[int, pa.StringArray]]:
    """The ids of the job's rows as text, each array with the index of its first row."""
    for batch in source.cursor([column], _BATCH_ROWS).read(0, plan.num_rows):
        yield batch.start, batch.records.column(0).cast(pa.string())


def _hash(ids: pa.StringArray) -> Any:
    """A hash of each id, uint64: 8 bytes an id is what millions of them may take of memory."""
    import pandas as pd

    return pd.util.hash_array(ids.to_numpy(zero_copy_only=False))


def _checked(ids: pa.StringArray, start: int, column: str) -> pa.StringArray:
    if ids.null_count:
        row = start + ids.is_null().index(True).as_py()
        raise JobError(f"input.id_column {column}: row {row} has no id; every row needs one")
    if not _is_utf8(ids):
        row = start + next(i for i in range(len(ids)) if not _is_utf8(ids.slice(i, 1)))
        raise JobError(f"input.id_column {column}: the id of row {row} is not UTF-8")
    return ids


def _is_utf8(ids: pa.StringArray) -> bool:
    """Whether all ids are UTF-8: Arrow reads other bytes from files without checking."""
    try:
        ids.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def _refuse_repeated(column: str, suspects: set[int], batches: Iterator[tuple[int, pa.StringArray]]) -> None:
    """Find two rows with the same id among those whose ids have the same hash; different ids may have one too."""
    seen: dict[str, int] = {}
    for start, ids in batches:
        for row, (value, digest) in enumerate(zip(ids.to_pylist(), _hash(ids).tolist(), strict=True), start):
            if digest not in suspects:
                continue
            if value in seen:
                raise JobError(f"input.id_column {column}: rows {seen[value]} and {row} have the same id {value!r}")
            seen[value] = row
