"""The input that a job names, opened."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from run_batch.io.inputs.huggingface import HfSource, is_saved_dataset
from run_batch.io.inputs.open_files import open_files
from run_batch.io.inputs.sample_images import with_image_column
from run_batch.io.inputs.source import InputError, Source, UnreachableInputError
from run_batch.io.outputs.shards import is_shard_name
from run_batch.jobs.job.config import JobConfig
from run_batch.jobs.job.errors import input_failed
from run_batch.model.checkpoint.hub_access import hub_trouble


def open_source(config: JobConfig, index: bytes = b"", looks_again: bool = False) -> Source:
    """Open the input that the job names.

    Args:
        index: what is known of its files already; see Source.index.
        looks_again: look at every file, also if it is in the index.

    Raises:
        JobError: it cannot be opened.
        RunError: it is damaged, or cannot be reached.
    """
    table, is_result = config.input, _result_check(config)
    paths = [config.resolve(path) for path in config.input_paths]
    try:
        if table.format == "hf" or (table.format is None and any(map(_is_data_set, paths))):
            return _open_data_set(config, paths, is_result)
        found = open_files(paths, table.format, index, table.split, table.name, is_result, looks_again)
        return with_image_column(found, table.image_column)
    except InputError as error:
        raise input_failed(error) from error


def _is_data_set(path: str) -> bool:
    """Whether a resolved path is the id of a data set on the Hub, or a folder of `save_to_disk`."""
    return _is_hub_id(path) or is_saved_dataset(Path(path))


def _is_hub_id(path: str) -> bool:
    return "://" not in path and not os.path.isabs(path)


def _open_data_set(config: JobConfig, paths: Sequence[str], is_result: Callable[[str], bool]) -> HfSource:
    table = config.input
    if len(paths) > 1:
        raise InputError(
            f"input.path: {next(filter(_is_data_set, paths), paths[0])} is a data set, which a list cannot hold; name "
            "it alone, or list the files that it is made of"
        )
    (path,) = paths
    if not _is_hub_id(path):
        if not os.path.isdir(path):
            raise InputError(f"input.path {config.input_paths[0]}: no such folder")
        is_result(os.path.realpath(path))
    trouble = hub_trouble(f"datasets/{path}") if _is_hub_id(path) else ""
    try:
        return HfSource(path, table.split, table.name)
    except InputError as error:
        if not trouble:
            raise
        raise UnreachableInputError(
            f"input.path {path}: {trouble}, and the data set is not in the cache on this machine (HF_HOME). Check "
            "network, proxy and HF_ENDPOINT; or load it where the Hub is reached, and name the folder of save_to_disk"
        ) from error


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
