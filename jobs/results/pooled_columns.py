"""The columns of a shard that hold what a pooling model gave, and back."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from run_batch.jobs.job.rows import Pooled, PooledForm
from run_batch.jobs.results.result_column import ResultColumn


def pooled_columns(form: PooledForm) -> list[ResultColumn]:
    """The columns of a job, in their order, without `error`."""
    is_vector = form.column != "score"
    return [
        ResultColumn(
            form.column,
            pa.list_(pa.float32(), form.width) if is_vector else pa.float32(),
            lambda r: _values(r) if is_vector else _values(r)[0],
        ),
        ResultColumn("prompt_tokens", pa.int32(), lambda r: r.prompt_tokens),
        ResultColumn("generated_tokens", pa.int32(), lambda r: r.generated_tokens),
    ]


def pooled_of(row: int, cells: Mapping[str, Any], form: PooledForm) -> Pooled:
    """A row as `pooled_columns` took it.

    Args:
        row: index in the input.
        cells: by column.
    """
    return Pooled(row, np.asarray(cells[form.column], np.float32).tobytes(), cells["prompt_tokens"])


def _values(result: Pooled) -> np.ndarray:
    return np.frombuffer(result.values, np.float32)
