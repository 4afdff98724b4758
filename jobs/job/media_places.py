"""Where the images of rows are that are not in the input: the media root, and the buckets of `input.allowed_hosts`."""

import os
from pathlib import Path

from run_batch.io import transient
from run_batch.io.inputs.source import Source
from run_batch.io.media.media_root import MediaRoot
from run_batch.io.object_stores import MissingStoreError, is_object_url, open_store
from run_batch.io.transient import describe, may_pass, refusal, retry
from run_batch.jobs.job.config import JobConfig
from run_batch.jobs.job.errors import JobError, MayPassError, run_failed
from run_batch.jobs.job.media_sample import columns_with_paths
from run_batch.jobs.job.prompt_column import PromptColumn
from run_batch.model.checkpoint.media_settings import find_refused_media


def media_root_of(config: JobConfig, source: Source) -> MediaRoot | None:
    """The folder that image paths are inside of, or its URL in a store of objects; None where there is none."""
    root = config.input.media_root
    if root is None:
        return source.folder
    return root if is_object_url(root) else Path(config.resolve(root))


def check_media(config: JobConfig, source: Source, prompt_column: PromptColumn) -> None:
    """Refuse places of images that are not there, or are empty, as where a file system is not mounted; and settings
    for videos where no row can have one.

    Raises:
        JobError: the media root is missing, or has no file where rows can name some; the package for a store of
            objects is missing.
        RunError: the media root cannot be read.
    """
    if config.input.video_column is None and prompt_column is PromptColumn.TEXTS:
        refused = find_refused_media(config.engine.get("media_io_kwargs"), has_videos=False)
        if refused is not None:
            raise JobError(refused)
    for entry in filter(is_object_url, config.input.allowed_hosts):
        _check_store(f"input.allowed_hosts: {entry}", entry, must_exist=False)
    root = config.input.media_root
    if root is None:
        return
    shown = f"input.media_root {root}"
    if is_object_url(root):
        _check_store(shown, root, must_exist=True)
    elif _is_empty(shown, config.resolve(root)) and columns_with_paths(config, source, prompt_column):
        raise JobError(
            f"{shown}: the folder is empty, and the input can name files in it. Mount or fill it; if all images are in "
            "the input itself or behind URLs, remove the key"
        )


def _is_empty(shown: str, folder: str) -> bool:
    def look() -> bool:
        with os.scandir(folder) as entries:
            return next(entries, None) is None

    try:
        return retry(look)
    except (FileNotFoundError, NotADirectoryError):
        raise JobError(f"{shown}: no such folder") from None
    except OSError as error:
        raise run_failed(f"{shown} cannot be read: {error.strerror}", error) from error


def _check_store(shown: str, url: str, must_exist: bool) -> None:
    """Open a store of objects; find out whether there is anything in its folder, if there must be."""
    try:
        files, path = open_store(url)
        is_there = not must_exist or retry(lambda: files.exists(path), transient.REMOTE_PAUSES)
    except MissingStoreError as error:
        raise JobError(f"{shown} {error}") from None
    except Exception as error:  # every file system has errors of its own
        kind = MayPassError if may_pass(error) else JobError
        raise kind(f"{shown} cannot be read: {describe(refusal(error) or error)}") from error
    if not is_there:
        raise JobError(f"{shown}: no such folder, or nothing is in it")
