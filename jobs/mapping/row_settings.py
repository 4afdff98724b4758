"""What a row says of itself beside its prompt: its sampling settings, its LoRA adapter, its priority."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from run_batch.jobs.job.config_tables import JobTables
from run_batch.jobs.mapping.row_adapter import row_adapter
from run_batch.jobs.mapping.row_sampling import row_sampling


@dataclass(frozen=True, slots=True)
class RowSettings:
    """The settings of a row, as MappedRow has them."""

    sampling: Mapping[str, Any]
    adapter: str | None = None
    priority: int = 0


def row_settings(
    row: Mapping[str, Any], row_id: str, job_sampling: Mapping[str, Any], config: JobTables
) -> RowSettings:
    """The settings of a row, from the columns that the job names for them.

    Args:
        row: its cells, by column.
        job_sampling: the job's own settings.

    Raises:
        RowError: one of them is invalid.
    """
    table = config.input
    sampling = row_sampling(job_sampling, row_id, row.get(table.sampling_column or ""))
    return RowSettings(sampling, row_adapter(row, config), row.get(table.priority_column or "") or 0)
