"""A job that can start: its configuration checked against its input and its output folder."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from run_batch.io.inputs.source import Source
from run_batch.io.media.image_column import can_hold_paths
from run_batch.io.outputs.shards import ShardStore
from run_batch.io.transient import retry
from run_batch.jobs.job.columns import check_columns
from run_batch.jobs.job.config import JobConfig
from run_batch.jobs.job.errors import JobError, run_failed, storage_errors
from run_batch.jobs.job.job_identity import is_recorded, job_identity, recorded_index
from run_batch.jobs.job.open_input import open_source
from run_batch.jobs.job.plan import Plan, make_plan
from run_batch.jobs.job.prompt_column import PromptColumn, find_prompt_column
from run_batch.jobs.job.row_ids import check_ids
from run_batch.jobs.job.shares import WHOLE_JOB, Share


@dataclass(frozen=True, slots=True)
class PreparedJob:
    """A job that can start: everything that is known without loading the model has been checked."""

    config: JobConfig
    source: Source
    plan: Plan
    store: ShardStore
    identity: dict[str, Any]
    share: Share = WHOLE_JOB
    prompt_column: PromptColumn = PromptColumn.TEXTS

    @property
    def shards(self) -> range:
        """The shards of the share."""
        return self.share.shards(self.plan)

    @property
    def media_root(self) -> Path | None:
        """The folder that image paths are inside of; None where paths are not allowed."""
        root = self.config.input.media_root
        return self.source.folder if root is None else Path(self.config.resolve(root))


def prepare(config: JobConfig, share: Share = WHOLE_JOB, *, writes: bool = True) -> PreparedJob:
    """Check a job against its input and its output folder.

    Args:
        share: the part of the job that this process works on.
        writes: whether results will be written. If not, the output folder is not looked at, whatever it holds; nor are
            the ids of all rows, which are checked before a job is recorded there.

    Raises:
        JobError: the job cannot start.
        RunError: the input is damaged; or storage or network fail.
    """
    store = ShardStore(config.output_folder, share.folder)
    # A run of the whole job looks at every file of the input. A thousand shares would do that a thousand times: each
    # looks at the files that it reads.
    source = open_source(config, recorded_index(store) if share.count > 1 else b"")
    check_columns(config, source)
    plan = make_plan(config, source)
    prompt_column = find_prompt_column(config, source)
    _check_media_root(config, source, prompt_column)
    identity = job_identity(config, source, prompt_column)
    if writes:
        with storage_errors(f"output.path {store.folder} cannot be read"):
            known = is_recorded(store, identity)
            is_writable = store.is_writable()
        if not is_writable:
            raise JobError(f"output.path {config.output.path}: {store.folder} cannot be written to")
        if not known:
            check_ids(config, source, plan)
    return PreparedJob(config, source, plan, store, identity, share, prompt_column)


def _is_empty(folder: str) -> bool:
    with os.scandir(folder) as entries:
        return next(entries, None) is None


def _check_media_root(config: JobConfig, source: Source, prompt_column: PromptColumn) -> None:
    """Refuse a folder of images that is not there, or is empty, as where a file system is not mounted.

    Raises:
        JobError: it is missing, or has no file where rows can name some.
        RunError: it cannot be read.
    """
    root = config.input.media_root
    if root is None:
        return
    shown = f"input.media_root {root}"
    try:
        is_empty = retry(lambda: _is_empty(config.resolve(root)))
    except (FileNotFoundError, NotADirectoryError):
        raise JobError(f"{shown}: no such folder") from None
    except OSError as error:
        raise run_failed(f"{shown} cannot be read: {error.strerror}", error) from error
    column = config.input.image_column
    names_files = prompt_column is not PromptColumn.TEXTS or (
        bool(column) and can_hold_paths(source.schema.field(column).type)
    )
    if is_empty and names_files:
        raise JobError(
            f"{shown}: the folder is empty, and the input can name files in it. Mount or fill it; if all images are in "
            "the input itself or behind URLs, remove the key"
        )
