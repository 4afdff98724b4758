"""The status of a job, read from the files of its output folder alone, while any number of processes work on it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

from run_batch.io.outputs.remote_folder import shown_url
from run_batch.io.outputs.shards import ShardError, ShardStore
from run_batch.jobs.job.config import JobConfig
from run_batch.jobs.job.errors import run_failed
from run_batch.jobs.job.plan import Plan
from run_batch.jobs.job.recorded_job import read_recorded_job
from run_batch.jobs.results.shard_check import find_damaged
from run_batch.jobs.results.shard_commits import read_commits
from run_batch.jobs.results.upload_ledger import UploadLedger
from run_batch.jobs.watch.job_folder import JobFolder
from run_batch.jobs.watch.open_shards import OpenShards
from run_batch.jobs.watch.progress_bar import duration
from run_batch.jobs.watch.share_processes import ShareProcess, has_starter, read_processes
from run_batch.jobs.watch.share_status import ShareStatus, State, share_statuses

# Up to this many shares are shown one by one.
_SHOWN_SHARES = 16
# So many missing shards are named.
_SHOWN_SHARDS = 5


@dataclass(frozen=True, slots=True)
class JobStatus:
    """The status of a job.

    Attributes:
        state: see docs/status.md.
        rows: of the whole job.
        done: rows that are finished: committed, or in a journal.
        failed: those of them with an error.
        truncated: those of them whose generation ended by `length`.
        left: rows that are not done.
        shards, shards_done: shards of the job, and those committed with all their rows.
        rows_per_second: of the last half minute, of all processes; 0 when none runs.
        seconds_left: at this rate; None when nothing runs.
        bottleneck: the slowest stage of most of the running processes: `engine`, `mapping`, `input` or `output`.
        shares: of the number of shares that was started last; none if the job does not run in shares.
        missing: names of shards that are gone although the job was complete.
        damaged: what is wrong with each shard that is truncated or damaged, by its name; only where all were read.
        uploaded: shards that are copied to output.upload as they are; None where the job has no such key.
        host, last_seen, silent_seconds, why, exit_code: see State: of the last process that is in the job's state.
    """

    state: str
    rows: int = 0
    done: int = 0
    failed: int = 0
    truncated: int = 0
    left: int = 0
    shards: int = 0
    shards_done: int = 0
    rows_per_second: float = 0.0
    seconds_left: float | None = None
    bottleneck: str = ""
    shares: list[ShareStatus] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    damaged: dict[str, str] = field(default_factory=dict)
    uploaded: int | None = None
    host: str = ""
    last_seen: float | None = None
    silent_seconds: float | None = None
    why: str = ""
    exit_code: int | None = None

    def as_text(self) -> str:
        """Lines for people."""
        state = State(self.state, self.host, self.last_seen, self.silent_seconds, self.why, self.exit_code)
        lines = [
            f"{state.as_text()}: {self.done} of {self.rows} rows done, {self.failed} failed, {self.left} left",
            f"shards: {self.shards_done} of {self.shards} committed",
            f"ended by length: {self.truncated} rows",
        ]
        if self.uploaded is not None:
            lines.append(f"uploaded: {self.uploaded} of {self.shards} shards")
        if self.seconds_left is not None:
            lines.append(f"{self.rows_per_second:.1f} rows/s, about {duration(self.seconds_left)} left")
        if self.bottleneck:
            lines.append(f"bottleneck: {self.bottleneck}")
        if len(self.shares) > _SHOWN_SHARES:
            states = [share.state for share in self.shares]
            counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
            lines.append(f"{len(self.shares)} shares: {counts}")
        if self.state == "stopped" and self.why:
            lines.append(f"it ended with: {self.why}")
        few = len(self.shares) <= _SHOWN_SHARES
        shown = [share for share in self.shares if few or share.state == "stalled"]
        lines += [share.as_text() for share in shown]
        lines += [f"{name} is missing, although the job was complete" for name in self.missing[:_SHOWN_SHARDS]]
        lines += [f"{name} is damaged: {why}" for name, why in self.damaged.items()]
        if self.damaged:
            lines.append("Remove what is damaged; then run-batch --config makes it again")
        return "\n".join(lines)

    def as_json(self) -> str:
        """One line of JSON."""
        return json.dumps(asdict(self))


def read_status(config: JobConfig, verify: bool = False) -> JobStatus:
    """The status of the job in its output folder; see `folder_status`."""
    return folder_status(JobFolder.of(config), verify)


def folder_status(folder: JobFolder, verify: bool = False) -> JobStatus:
    """The status of the job in a results folder.

    Args:
        verify: read every committed shard to its end.

    Raises:
        JobError: the folder holds something else.
        RunError: a shard or journal cannot be read.
    """
    store = folder.store
    job = read_recorded_job(store)
    if job is None:
        return JobStatus("not started")
    try:
        damaged = find_damaged(store, job.plan, _planned(store, job.plan)) if verify else {}
        url = folder.upload
        ledger = None if url is None else UploadLedger(store, shown_url(url))
        return _read_status(store, job.plan, job.job_hash, damaged, ledger)
    except (ShardError, OSError) as error:
        raise run_failed(f"the job in {store.folder} cannot be looked at: {error}", error) from error


def _planned(store: ShardStore, plan: Plan) -> list[int]:
    """The committed shards of the job."""
    return [shard for shard in store.committed() if shard < plan.num_shards]


def _read_status(
    store: ShardStore, plan: Plan, hashed: str, damaged: Mapping[int, str], ledger: UploadLedger | None
) -> JobStatus:
    # Progress is read before journals, and those before the shards: what one process writes meanwhile is seen in both
    # places, and counts once, in the later one.
    processes = read_processes(store.run_folder)
    telling = [found.record for found in processes.values() if found.record is not None and found.tells]
    running = [found.record for found in processes.values() if found.record is not None and found.state == "running"]
    finished = OpenShards(store, hashed, plan, telling)
    there = [shard for shard in _planned(store, plan) if shard not in damaged]
    missing = sorted(set(range(plan.num_shards)).difference(there, damaged)) if store.is_complete() else []
    commits = read_commits(store, plan, there)
    rows_of = {shard: min(commit.rows, len(plan.rows(shard))) for shard, commit in commits.items()}
    whole = sum(rows == len(plan.rows(shard)) for shard, rows in rows_of.items())
    uploaded = None if ledger is None else len(commits) - len(ledger.missing(commits.values()))
    is_complete = store.is_complete() and whole == plan.num_shards and uploaded in (None, plan.num_shards)
    left_open = list(finished.uncommitted(commits))
    done = sum(rows_of.values()) + sum(rows.rows for rows in left_open)
    rate = sum(record.rows_per_second for record in running)
    left = plan.num_rows - done
    bottlenecks = [record.bottleneck for record in running]
    state = _job_state(is_complete, list(processes.values()), has_starter(store.run_folder), bool(there or finished))
    return JobStatus(
        state=state.name,
        rows=plan.num_rows,
        done=done,
        failed=sum(commit.failed for commit in commits.values()) + sum(rows.failed for rows in left_open),
        truncated=sum(commit.truncated for commit in commits.values()) + sum(rows.truncated for rows in left_open),
        left=left,
        shards=plan.num_shards,
        shards_done=whole,
        rows_per_second=rate,
        seconds_left=left / rate if rate > 0 else None,
        bottleneck=max(bottlenecks, key=bottlenecks.count, default=""),
        shares=share_statuses(plan, processes, rows_of),
        missing=[store.path(shard).name for shard in missing],
        damaged={store.path(shard).name: why for shard, why in damaged.items()},
        uploaded=uploaded,
        host=state.host,
        last_seen=state.last_seen,
        silent_seconds=state.silent_seconds,
        why=state.why,
        exit_code=state.exit_code,
    )


def _job_state(is_complete: bool, processes: Sequence[ShareProcess], is_started: bool, has_rows: bool) -> State:
    """The state of the job: that of the process that is furthest, and of several such, of the last one seen.

    Args:
        is_started: a process runs that starts several engines.
        has_rows: rows are finished, whoever has done it.
    """
    if is_complete:
        return State("complete")
    latest = sorted(processes, key=lambda process: process.seen)
    for name in ("running", "loading", "waiting", "stalled"):
        of_name = [process for process in latest if process.state == name]
        if of_name:
            return State.of(name, of_name[-1])
        if name == "loading" and is_started:
            return State("loading")
    if latest:
        return State.of("stopped", latest[-1])
    return State("stopped" if has_rows else "not started")
