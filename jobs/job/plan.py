"""Rows to shards: what the input holds, which shards there are, which of them are done.

Here a new job is told from the continuation of an old one: `.run_batch/job.json` holds every key that can change
results, and fingerprints of input and model.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from run_batch.io.files import replace_file, sample_file, sync_folder
from run_batch.io.inputs.huggingface import HfSource, is_saved_dataset
from run_batch.io.inputs.parquet import ParquetSource
from run_batch.io.inputs.source import DamagedInputError, InputError, Source
from run_batch.io.outputs.shards import ShardStore
from run_batch.io.secrets import hide_secrets
from run_batch.jobs.job.config import JobConfig, result_keys
from run_batch.jobs.job.errors import JobError, RunError
from run_batch.jobs.job.prompt_template import parse_template, require_column

# Samples of each file of a model: some MiB, whatever its size.
_MODEL_SAMPLES = 32

_INDEX_FILE = "input.json"

RESULT_COLUMNS = (
    "row_id",
    "text",
    "texts",
    "finish_reason",
    "prompt_tokens",
    "generated_tokens",
    "error",
    "logprobs",
)


@dataclass(frozen=True, slots=True)
class Plan:
    """All rows of a job, cut into shards.

    Attributes:
        num_rows: rows of the job.
        rows_per_shard: rows of each shard but the last.
    """

    num_rows: int
    rows_per_shard: int

    @property
    def num_shards(self) -> int:
        return -(-self.num_rows // self.rows_per_shard)

    def rows(self, shard: int) -> range:
        start = shard * self.rows_per_shard
        return range(start, min(start + self.rows_per_shard, self.num_rows))


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


def check_columns(config: JobConfig, schema: pa.Schema) -> None:
    """Check every key that names columns against the input.

    Raises:
        JobError: names the key, the column and what the input has.
    """
    table = config.input
    if table.image_column:
        require_column("input.image_column", table.image_column, schema)
    if config.prompt.chat:
        require_column("input.prompt_column", table.prompt_column, schema)
    else:
        parse_template(config.prompt.template, table.prompt_column, schema)
    if table.id_column is not None:
        require_column("input.id_column", table.id_column, schema)
    if table.sampling_column is not None:
        require_column("input.sampling_column", table.sampling_column, schema)
    if config.errors.expected_column is not None:
        require_column("errors.expected_column", config.errors.expected_column, schema)
    for column in config.output.columns:
        if column in RESULT_COLUMNS:
            raise JobError(f"output.columns: {column} is the name of a result column; rename it in the input")
        require_column("output.columns", column, schema)


def make_plan(config: JobConfig, source: Source) -> Plan:
    """The plan of a job over its whole input.

    Raises:
        JobError: the input has no rows.
    """
    num_rows = source.num_rows if config.input.limit is None else min(source.num_rows, config.input.limit)
    if num_rows == 0:
        raise JobError(f"input.path {config.input.path}: the input has no rows")
    return Plan(num_rows, config.output.rows_per_shard)


def check_ids(config: JobConfig, source: Source, plan: Plan) -> None:
    """Check that the id column has one value for each row, and no value twice.

    Raises:
        JobError: names the first value that is null or there twice, and its row.
        RunError: the input is damaged.
    """
    import numpy as np
    import pandas as pd

    column = config.input.id_column
    if column is None:
        return
    hashes = []
    try:
        for batch in source.read(0, plan.num_rows, [column], 1 << 16):
            ids = batch.records.column(0).cast(pa.string())
            if ids.null_count:
                row = batch.start + ids.is_null().index(True).as_py()
                raise JobError(f"input.id_column {column}: row {row} has no id; every row needs one")
            row = batch.start + _first_not_utf8(ids)
            if row < batch.start + len(ids):
                raise JobError(f"input.id_column {column}: the id of row {row} is not UTF-8")
            hashes.append(pd.util.hash_array(ids.to_numpy(zero_copy_only=False)))
    except DamagedInputError as error:
        raise RunError(str(error)) from None
    except (InputError, pa.ArrowException) as error:
        raise JobError(f"input.id_column {column}: {error}") from None
    values, counts = np.unique(np.concatenate(hashes), return_counts=True)
    if len(values) == plan.num_rows:
        return
    suspects = set(values[counts > 1].tolist())
    seen: dict[str, int] = {}
    for batch in source.read(0, plan.num_rows, [column], 1 << 16):
        ids = batch.records.column(0).cast(pa.string())
        for offset, (value, digest) in enumerate(
            zip(ids.to_pylist(), pd.util.hash_array(ids.to_numpy(zero_copy_only=False)).tolist(), strict=True)
        ):
            if digest in suspects:
                row = batch.start + offset
                if value in seen:
                    raise JobError(f"input.id_column {column}: rows {seen[value]} and {row} have the same id {value!r}")
                seen[value] = row


def _first_not_utf8(ids: pa.StringArray) -> int:
    """Position of the first text that is not UTF-8, which Arrow takes from files unseen; their number if all are."""
    try:
        ids.validate(full=True)
        return len(ids)
    except pa.ArrowInvalid:
        return next((i for i in range(len(ids)) if not _is_utf8(ids.slice(i, 1))), len(ids))


def _is_utf8(ids: pa.StringArray) -> bool:
    try:
        ids.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def job_identity(config: JobConfig, source: Source) -> dict[str, Any]:
    """What makes two runs the same job: all keys that can change results, and what input and model files hold."""
    identity = result_keys(config)
    identity["input.path (its files)"] = source.fingerprint
    identity["model.path (its files)"] = _model_fingerprint(Path(config.resolve(config.model.path)))
    # Written to disk, and shown where it has changed. Other credentials for the same input are the same job.
    shown = {name: hide_secrets(value) if isinstance(value, str) else value for name, value in identity.items()}
    return json.loads(json.dumps(shown, default=str))


def _model_fingerprint(folder: Path) -> str:
    """Changes with any change of the model's configuration, and with other weights: large files are read in samples."""
    digest = hashlib.sha256()
    if folder.is_dir():
        for path in sorted(p for p in folder.rglob("*") if p.is_file() and not p.name.startswith(".")):
            digest.update(f"{path.relative_to(folder)} ".encode() + sample_file(path, _MODEL_SAMPLES))
    return digest.hexdigest()


def job_hash(identity: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def check_same_job(store: ShardStore, identity: dict[str, Any]) -> bool:
    """Refuse to go on with the results of another job.

    Returns:
        Whether the folder has been recorded to be of this job: what `record_job` comes after need not be checked again.

    Raises:
        JobError: lists the keys that changed.
    """
    try:
        before = json.loads((store.run_folder / "job.json").read_text())["identity"]
    except (FileNotFoundError, NotADirectoryError):
        if store.committed():
            raise JobError(
                f"{store.folder} holds shards, but not of a run-batch job; choose another output.path"
            ) from None
        return False
    except (OSError, ValueError, KeyError) as error:
        raise JobError(f"output.path: {store.run_folder / 'job.json'} cannot be read: {error}") from None
    changed = [
        f"{name}: {_show(before, name)} -> {_show(identity, name)}"
        for name in sorted({*before, *identity})
        if before.get(name) != identity.get(name)
    ]
    if changed:
        raise JobError(
            f"{store.folder} holds the results of another job. Changed: {'; '.join(changed)}. "
            "Change it back to resume, or choose another output.path, or remove this one"
        )
    return True


def _show(identity: dict[str, Any], name: str) -> str:
    if name not in identity:
        return "(not set)"
    return "(other content)" if name.endswith("(its files)") else repr(identity[name])


def recorded_index(store: ShardStore) -> bytes:
    """What `record_job` has kept of the input's files; empty before that."""
    try:
        return (store.run_folder / _INDEX_FILE).read_bytes()
    except OSError:
        return b""


def record_job(store: ShardStore, identity: dict[str, Any], plan: Plan, source: Source) -> None:
    """Write down which job this folder belongs to, once.

    Raises:
        OSError: the folder cannot be written to.
    """
    if (store.run_folder / "job.json").exists():
        return
    if isinstance(source, ParquetSource):
        replace_file(store.run_folder / _INDEX_FILE, source.index)
    content = {
        "job_hash": job_hash(identity),
        "identity": identity,
        "rows": plan.num_rows,
        "rows_per_shard": plan.rows_per_shard,
    }
    replace_file(store.run_folder / "job.json", json.dumps(content, indent=1).encode())
    sync_folder(store.run_folder)
