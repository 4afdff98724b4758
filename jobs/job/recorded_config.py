"""The job.toml of the last run, as its output folder records it: for those who look at results without that file.

Nothing of a job depends on it. What a run went by is recorded without secrets.
"""

import json
from pathlib import Path
from typing import Any

import msgspec

from run_batch.io.files import read_file, replace_file
from run_batch.io.outputs.shards import ShardStore
from run_batch.jobs.job.config import JobConfig, parse_config
from run_batch.jobs.job.errors import JobError
from run_batch.jobs.job.job_identity import as_recorded
from run_batch.jobs.job.recorded_job import CONFIG_FILE


class _ConfigFile(msgspec.Struct):
    """The content of `config.json`.

    Attributes:
        folder: of job.toml.
        tables: of it.
    """

    folder: str
    tables: dict[str, dict[str, Any]]


_decoder = msgspec.json.Decoder(_ConfigFile)


def record_config(store: ShardStore, config: JobConfig) -> None:
    """Record the keys of job.toml that are set, and the folder that their paths are relative to.

    Raises:
        OSError: the folder cannot be written to.
    """
    tables = config.model_dump(exclude={"folder"}, exclude_unset=True)
    content = json.dumps({"folder": str(config.folder), "tables": as_recorded(tables)}, indent=1).encode()
    file = store.run_folder / CONFIG_FILE
    # A thousand shares have the same one.
    try:
        is_recorded = read_file(file) == content
    except FileNotFoundError:
        is_recorded = False
    if not is_recorded:
        replace_file(file, content)


def recorded_config(store: ShardStore) -> JobConfig | None:
    """The recorded job.toml; None where there is none, or none that this version and this machine take.

    Raises:
        OSError: it cannot be read.
    """
    content = _read(store)
    try:
        return None if content is None else parse_config(content.tables, Path(content.folder))
    except (RecursionError, JobError):
        return None


def recorded_tables(store: ShardStore) -> dict[str, dict[str, Any]]:
    """The tables of the recorded job.toml, as they are; none where none is recorded.

    Raises:
        OSError: it cannot be read.
    """
    content = _read(store)
    return {} if content is None else content.tables


def _read(store: ShardStore) -> _ConfigFile | None:
    try:
        return _decoder.decode(read_file(store.run_folder / CONFIG_FILE))
    except (FileNotFoundError, msgspec.MsgspecError, RecursionError):
        return None
