"""A row's own LoRA adapter, by its name in the table `[lora]`."""

from collections.abc import Collection
from typing import Any

from run_batch.jobs.job.adapters import adapter_key
from run_batch.model.declaration import RowError


def row_adapter(cell: Any, names: Collection[str]) -> str | None:
    """The key of job.toml that names the adapter in a row's cell of `input.lora_column`; None for none.

    Args:
        names: the keys of `[lora]`.

    Raises:
        RowError: `adapter`, for a name that the job does not have.
    """
    if cell is None:
        return None
    if cell in names:
        return adapter_key(cell)
    raise RowError("adapter", f"{cell!r} is none of the names in [lora]")
