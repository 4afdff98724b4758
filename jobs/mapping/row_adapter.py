"""The LoRA adapter of a row: that of the job, or the row's own by its name in the table `[lora]`."""

from collections.abc import Mapping
from typing import Any

from run_batch.jobs.job.adapters import OF_ALL_ROWS, adapter_key
from run_batch.jobs.job.config_tables import JobTables
from run_batch.model.declaration import RowError


def row_adapter(row: Mapping[str, Any], config: JobTables) -> str | None:
    """The key of job.toml that names the adapter of a row; None for none.

    Args:
        row: its cells, by column.

    Raises:
        RowError: `adapter`, for a name in `input.lora_column` that `[lora]` does not have.
    """
    column = config.input.lora_column
    if column is None:
        return OF_ALL_ROWS if config.model.lora is not None else None
    name = row[column]
    if name is None:
        return None
    if name not in config.lora:
        raise RowError("adapter", f"{name!r} is none of the names in [lora]")
    return adapter_key(name)
