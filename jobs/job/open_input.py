"""The input that a job names, opened."""

import os
from collections.abc import Callable
from pathlib import Path

from run_batch.io.inputs.huggingface import HfSource, is_saved_dataset
from run_batch.io.inputs.parquet import ParquetSource
from run_batch.io.inputs.source import InputError, Source
from run_batch.io.outputs.shards import is_shard_name
from run_batch.jobs.job.config import JobConfig
from run_batch.jobs.job.errors import input_failed


def open_source(config: JobConfig, index: bytes = b"") -> Source:
    """Open the input that the job names.

    Args:
        index: what is known of its files already; see ParquetSource.

    Raises:
        JobError: it cannot be opened.
        RunError: it is damaged, or cannot be reached.
    """
    table, is_result = config.input, _result_check(config)
    path = config.resolve(table.path)
    local = Path(path)
    is_hub_id = config.is_on_hub(table.path)
    is_hf = table.format == "hf" or (table.format is None and (is_hub_id or is_saved_dataset(local)))
    try:
        if is_hf:
            if not is_hub_id and not local.is_dir():
                raise InputError(f"input.path {table.path}: no such folder")
            if not is_hub_id:
                is_result(os.path.realpath(path))
            return HfSource(path, table.split, table.name)
        return ParquetSource(path, index, table.split, table.name, is_result)
    except InputError as error:
        raise input_failed(error) from error


def _result_check(config: JobConfig) -> Callable[[str], bool]:
    """Whether a file that the input names, given by its real path, is one of the job's own results.

    The results folder may be inside the input's. The check raises InputError for any other file or folder in it.
    """
    results = os.path.realpath(config.output_folder)

    def is_result(path: str) -> bool:
        folder, name = os.path.split(path)
        if folder == results and is_shard_name(name):
            return True
        if path == results or path.startswith(os.path.join(results, "")):
            raise InputError(
                f"output.path {config.output.path}: {path}, which is part of the input, is in this folder; choose "
                "another folder for the results"
            )
        return False

    return is_result
