"""The input that a job names, opened."""

from pathlib import Path

from run_batch.io.inputs.huggingface import HfSource, is_saved_dataset
from run_batch.io.inputs.parquet import ParquetSource
from run_batch.io.inputs.source import DamagedInputError, InputError, Source
from run_batch.jobs.job.config import JobConfig
from run_batch.jobs.job.errors import JobError, RunError


def open_source(config: JobConfig, index: bytes = b"") -> Source:
    """Open the input that the job names.

    Args:
        index: what is known of its files already; see ParquetSource.

    Raises:
        JobError: it cannot be opened.
        RunError: it is damaged.
    """
    table = config.input
    path = config.resolve(table.path)
    local = Path(path)
    is_hub_id = "://" not in path and not local.is_absolute()
    is_hf = table.format == "hf" or (table.format is None and (is_hub_id or is_saved_dataset(local)))
    try:
        if is_hf:
            if not is_hub_id and not local.is_dir():
                raise InputError(f"input.path {table.path}: no such folder")
            return HfSource(path, table.split, table.name)
        return ParquetSource(path, index)
    except DamagedInputError as error:
        raise RunError(str(error)) from None
    except InputError as error:
        raise JobError(str(error)) from None
