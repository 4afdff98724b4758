"""What an output folder records of the job that it belongs to, read back.

`job.json` holds what can never change. What may grow is the list of rows: `plan-N.json` holds one that a process has
planned with, the highest N that can be read counts, and each begins with the rows of the one before.
"""

import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from run_batch.io.files import list_names, read_file
from run_batch.io.inputs.input_parts import InputPart
from run_batch.io.outputs.shards import ShardStore
from run_batch.io.transient import may_pass
from run_batch.jobs.job.errors import JobError, storage_failed
from run_batch.jobs.job.job_identity import job_hash
from run_batch.jobs.job.plan import Plan, load_begins

JOB_FILE = "job.json"
VERSIONS_FILE = "versions.json"
# See recorded_config.py.
CONFIG_FILE = "config.json"
_PLAN_NAME = re.compile(r"plan-(\d+)\.json")
# A plan is written before its job, and directories of network file systems are seen late.
_SECONDS_UNTIL_SEEN = 5.0


@dataclass(frozen=True, slots=True)
class JobRecord:
    """A job, as its output folder records it.

    Attributes:
        identity: see `job_identity`.
        plan: of the whole job.
        parts: the rows that the plan counts, in order.
        named: the keys that name content, and input.limit, for people.
        media: digests of some files below the media root, by the path that rows name them by.
        versions: of the distributions that have made results, oldest first; each as in `content.versions`.
        number: N of the plan's file; 0 where the plan is not recorded.
    """

    identity: Mapping[str, Any]
    plan: Plan
    parts: tuple[InputPart, ...] = ()
    named: Mapping[str, Any] = field(default_factory=dict)
    media: Mapping[str, str] = field(default_factory=dict)
    versions: Sequence[Mapping[str, str]] = ()
    number: int = 0

    @property
    def job_hash(self) -> str:
        """Hash of the identity."""
        return job_hash(self.identity)


class PlanFile(msgspec.Struct):
    """The content of `plan-N.json`."""

    job_hash: str
    rows: int
    rows_per_shard: int
    shards_at_row_groups: str
    cut: tuple[int, ...]
    named: dict[str, Any]
    parts: tuple[InputPart, ...]


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(PlanFile)


def encode_plan(plan: PlanFile) -> bytes:
    """The bytes of `plan-N.json`."""
    return _encoder.encode(plan)


def plan_path(store: ShardStore, number: int) -> Path:
    """The file of the plan of this number."""
    return store.run_folder / f"plan-{number}.json"


def index_path(store: ShardStore, number: int) -> Path:
    """The file with what the input's files hold, of the plan of this number; see Source.index."""
    return store.run_folder / f"input-{number}.json"


def plan_numbers(store: ShardStore) -> list[int]:
    """The numbers of all files of plans, those that cannot be read too; ascending.

    Raises:
        OSError: the folder cannot be read.
    """
    return sorted(int(match[1]) for name in list_names(store.run_folder) if (match := _PLAN_NAME.fullmatch(name)))


def read_recorded_job(store: ShardStore) -> JobRecord | None:
    """Read which job an output folder belongs to; None if no job has been recorded there.

    Raises:
        JobError: the record cannot be read, or the folder holds shards of something else.
        MayPassError: the storage fails in a way that may pass.
    """
    file = store.run_folder / JOB_FILE
    try:
        return _read(store, file)
    except (FileNotFoundError, NotADirectoryError):
        if store.is_of_earlier_layout():
            raise _of_earlier_version(store, "_run/, part-00000.parquet") from None
        if store.committed():
            raise JobError(
                f"{store.folder} holds shards, but not of a run-batch job; choose another output.path"
            ) from None
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, OSError) and may_pass(error):
            raise storage_failed(f"output.path: {store.run_folder} cannot be read", error) from error
        raise JobError(f"output.path: {file} cannot be read: {error}") from error


def recorded_index(store: ShardStore) -> bytes:
    """What is recorded of the input's files; empty before that."""
    try:
        return read_file(index_path(store, max(plan_numbers(store), default=0)))
    except OSError:
        return b""


def _read(store: ShardStore, file: Path) -> JobRecord:
    until = time.monotonic() + _SECONDS_UNTIL_SEEN
    while True:
        content = json.loads(read_file(file))
        if "rows" in content:
            raise _of_earlier_version(store, f"{JOB_FILE} with its rows")
        found = _latest_plan(store, content["job_hash"])
        if found is not None:
            break
        if time.monotonic() > until:
            raise ValueError(f"no {plan_path(store, 1).name} of this job is beside it")
        time.sleep(0.1)  # another job takes the folder over just now
    number, plan = found
    return JobRecord(
        content["identity"],
        Plan(plan.rows, plan.rows_per_shard, load_begins(plan.shards_at_row_groups), plan.cut),
        plan.parts,
        plan.named,
        content["media"],
        [content["versions"], *_later_versions(store)],
        number,
    )


def _of_earlier_version(store: ShardStore, found: str) -> JobError:
    return JobError(
        f"{store.folder} holds results of an earlier version of run-batch ({found}), which this version cannot resume; "
        "choose another output.path"
    )


def _latest_plan(store: ShardStore, hashed: str) -> tuple[int, PlanFile] | None:
    """The plan that counts; one whose process died while it wrote is none."""
    for number in reversed(plan_numbers(store)):
        try:
            plan = _decoder.decode(read_file(plan_path(store, number)))
        except (msgspec.MsgspecError, FileNotFoundError):
            continue
        if plan.job_hash == hashed:
            return number, plan
    return None


def _later_versions(store: ShardStore) -> list[dict[str, str]]:
    try:
        found: list[dict[str, str]] = json.loads(read_file(store.run_folder / VERSIONS_FILE))
    except FileNotFoundError:
        return []
    return found
