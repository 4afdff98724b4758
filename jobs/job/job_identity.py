"""Which job an output folder belongs to: a new job is distinguished from one that is resumed.

`.run_batch/job.json` holds every key that can change results, and fingerprints of input and model.
"""

import hashlib
import json
import time
from dataclasses import dataclass
from typing import Any

from run_batch.io.coordination.lease import Lease, LeaseHeldError
from run_batch.io.files import read_file, replace_file, sync_folder
from run_batch.io.inputs.parquet import ParquetSource
from run_batch.io.inputs.source import Source, fingerprint
from run_batch.io.outputs.journal import SUFFIX
from run_batch.io.outputs.shards import ShardStore
from run_batch.io.secrets import hide_secrets
from run_batch.jobs.job.chat_settings import chat_content
from run_batch.jobs.job.config import JobConfig, result_keys
from run_batch.jobs.job.content import model_content, plugins_source, vllm_version
from run_batch.jobs.job.errors import JobError
from run_batch.jobs.job.plan import Plan, dump_begins, load_begins
from run_batch.jobs.job.prompt_column import PromptColumn
from run_batch.jobs.job.shares import begun_shares, has_engines, is_running

JOB_FILE = "job.json"
INDEX_FILE = "input.json"
# Pause between two looks while another process records the job.
_RECORDING_SECONDS = 0.05

# How names of the identity end whose values are digests, which tell people nothing.
_CONTENTS = ("(its files)", "(their source)", "(its text)", "(their text)", "(their images)")


def job_identity(config: JobConfig, source: Source, prompt_column: PromptColumn = PromptColumn.TEXTS) -> dict[str, Any]:
    """What makes two runs the same job: all keys that can change results, and the content behind them.

    Raises:
        JobError: a generation config, or a file that prompt names, cannot be read.
    """
    identity = {**result_keys(config), **chat_content(config)}
    if prompt_column is not PromptColumn.TEXTS:
        identity["input.prompt_column (holds)"] = prompt_column.value
    sampling = config.resolve_sampling()
    identity |= {f"sampling.{name}": value for name, value in sampling.values.items()}
    identity["generation_config.eos_token_id"] = list(sampling.eos_token_ids)
    identity["input.path (its files)"] = fingerprint(source.files)
    identity["model.path (its files)"] = model_content(config.model_settings.path, config.engine.get("revision"))
    identity["model.plugins (their source)"] = plugins_source(config.model.plugins, config.folder)
    identity["version of vLLM"] = vllm_version()
    # Written to disk, and shown where it has changed. Other credentials for the same input are the same job.
    shown = {name: hide_secrets(value) if isinstance(value, str) else value for name, value in identity.items()}
    return json.loads(json.dumps(shown, default=str))


def job_hash(identity: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class RecordedJob:
    """The job that an output folder belongs to, as it was recorded when it started.

    Attributes:
        identity: see `job_identity`.
        job_hash: hash of it, which journals and shards carry.
        plan: of the whole job.
    """

    identity: dict[str, Any]
    job_hash: str
    plan: Plan


def read_recorded_job(store: ShardStore) -> RecordedJob | None:
    """Read which job an output folder belongs to; None if no job has been recorded there.

    Raises:
        JobError: the record cannot be read, or the folder holds shards of something else.
    """
    file = store.run_folder / JOB_FILE
    try:
        content = json.loads(read_file(file))
        plan = Plan(content["rows"], content["rows_per_shard"], load_begins(content["shards_at_row_groups"]))
        return RecordedJob(content["identity"], content["job_hash"], plan)
    except (FileNotFoundError, NotADirectoryError):
        if store.is_of_earlier_layout():
            raise JobError(
                f"{store.folder} holds results of an earlier version of run-batch (_run/, part-00000.parquet), "
                "which this version cannot resume; choose another output.path"
            ) from None
        if store.committed():
            raise JobError(
                f"{store.folder} holds shards, but not of a run-batch job; choose another output.path"
            ) from None
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise JobError(f"output.path: {file} cannot be read: {error}") from error


def check_same_job(store: ShardStore, identity: dict[str, Any]) -> bool:
    """Refuse to resume in the results folder of another job.

    Returns:
        Whether the folder was recorded for this job already: the checks that come before recording can be left out.

    Raises:
        JobError: lists the keys that changed.
    """
    recorded = read_recorded_job(store)
    if recorded is None:
        return False
    before = recorded.identity
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


def is_recorded(store: ShardStore, identity: dict[str, Any]) -> bool:
    """Whether the results folder was recorded for this job; not where no job is recorded, or one that this job may take
    the folder over from: it has left no row, and none of its processes runs.

    Raises:
        JobError: another job has left rows there, or runs; lists the keys that changed.
        OSError: the folder cannot be read.
    """
    while True:
        before = read_recorded_job(store)
        try:
            return check_same_job(store, identity)
        except JobError:
            if _is_abandoned(store):
                return False
            # A process that runs may be of this job, and have taken the folder over just now.
            if read_recorded_job(store) == before:
                raise


def _is_abandoned(store: ShardStore) -> bool:
    if store.committed() or any(store.journal_folder.glob(f"*{SUFFIX}")):
        return False
    if has_engines(store.run_folder):
        return False
    return not any(is_running(store.run_folder, share) for share in begun_shares(store.run_folder))


def _show(identity: dict[str, Any], name: str) -> str:
    if name not in identity:
        return "(not set)"
    return "(other content)" if name.endswith(_CONTENTS) else repr(identity[name])


def recorded_index(store: ShardStore) -> bytes:
    """What `record_job` has kept of the input's files; empty before that."""
    try:
        return read_file(store.run_folder / INDEX_FILE)
    except OSError:
        return b""


def record_job(store: ShardStore, identity: dict[str, Any], plan: Plan, source: Source) -> None:
    """Write down which job this folder belongs to, if that is not recorded yet; one process at a time does.

    Raises:
        JobError: the folder belongs to another job.
        OSError: the folder cannot be written to.
    """
    lease = Lease(store.run_folder, "job")
    while not is_recorded(store, identity):
        try:
            lease.take()
        except LeaseHeldError:
            time.sleep(_RECORDING_SECONDS)
            continue
        try:
            if not is_recorded(store, identity):
                _forget_job(store)
                _record(store, identity, plan, source)
        finally:
            lease.release()


def _forget_job(store: ShardStore) -> None:
    """Remove what a job that has left no row has written besides: its scripts and their logs stay."""
    for share in begun_shares(store.run_folder):
        for path in (store.run_folder / share.folder).iterdir():
            if path.is_file() and not path.name.startswith(("lease-", "submit-", ".")):
                path.unlink(missing_ok=True)


def _record(store: ShardStore, identity: dict[str, Any], plan: Plan, source: Source) -> None:
    if isinstance(source, ParquetSource):
        replace_file(store.run_folder / INDEX_FILE, source.index)
    content = {
        "job_hash": job_hash(identity),
        "identity": identity,
        "rows": plan.num_rows,
        "rows_per_shard": plan.rows_per_shard,
        "shards_at_row_groups": dump_begins(plan.begins),
    }
    replace_file(store.run_folder / JOB_FILE, json.dumps(content, indent=1).encode())
    sync_folder(store.run_folder)
