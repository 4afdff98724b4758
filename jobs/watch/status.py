"""The status of a job, read from the files of its output folder alone, while any number of processes work on it."""

import json
import time
from collections.abc import Collection
from dataclasses import asdict, dataclass, field

from run_batch.io.coordination.claims import claimed
from run_batch.io.coordination.process_identity import Holder, has_ended
from run_batch.io.outputs.shards import ShardError, ShardStore
from run_batch.jobs.job.config import JobConfig
from run_batch.jobs.job.errors import RunError
from run_batch.jobs.job.job_identity import read_recorded_job
from run_batch.jobs.job.plan import Plan
from run_batch.jobs.job.rows import RowFailure, RowResult, is_truncated
from run_batch.jobs.job.shares import WHOLE_JOB, Share, files_of_shares, share_of
from run_batch.jobs.results.journal_files import read_rows, segments
from run_batch.jobs.results.shard_commits import read_commits
from run_batch.jobs.watch.progress import PROGRESS_FILE, ProgressRecord, read_progress

# A run writes its progress every second; on a busy shared file system it can take a while until others see it.
_ALIVE_SECONDS = 15.0
_STALLED_SECONDS = 60.0
# Up to this many shares are shown one by one.
_SHOWN_SHARES = 16


@dataclass(frozen=True, slots=True)
class ShareStatus:
    """The status of one share, of a job that runs in shares.

    Attributes:
        share: `INDEX-of-COUNT`.
        state: `not started`, `running`, `stalled` (it has written no progress for a minute, and did not end),
            `unfinished` (it has ended) or `complete`.
        rows, done, left: of the share's own shards; only those in committed shards are done.
        rows_per_second: 0 unless it runs.
        bottleneck: see JobStatus.
        host: the host that it ran on last; empty if it has not been started.
        silent_seconds: since it wrote its progress; None if it never did.
    """

    share: str
    state: str
    rows: int
    done: int
    left: int
    rows_per_second: float
    bottleneck: str
    host: str
    silent_seconds: float | None

    def as_text(self) -> str:
        """A line for people."""
        line = f"share {self.share}: {self.state}, {self.done} of {self.rows} rows committed"
        if self.state == "running":
            line += f", {self.rows_per_second:.1f} rows/s on {self.host}"
        elif self.state == "stalled":
            line += f"; no sign of life from {self.host} for {self.silent_seconds:.0f} s"
        return line


@dataclass(frozen=True, slots=True)
class JobStatus:
    """The status of a job.

    Attributes:
        state: `not started`, `running`, `unfinished` or `complete`.
        rows: of the whole job.
        done: rows that are finished: committed, or in a journal.
        failed: those of them with an error.
        truncated: those of them whose generation ended by `length`.
        left: rows that are not done.
        shards, shards_done: shards of the job, and those committed.
        rows_per_second: of the last half minute, of all processes; 0 when none runs.
        seconds_left: at this rate; None when nothing runs.
        bottleneck: the slowest stage of most of the running processes: `engine`, `mapping`, `input` or `output`.
        shares: of the number of shares that was started last; none if the job does not run in shares.
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

    def as_text(self) -> str:
        """Lines for people."""
        lines = [
            f"{self.state}: {self.done} of {self.rows} rows done, {self.failed} failed, {self.left} left",
            f"shards: {self.shards_done} of {self.shards} committed",
            f"ended by length: {self.truncated} rows",
        ]
        if self.seconds_left is not None:
            lines.append(f"{self.rows_per_second:.1f} rows/s, about {self.seconds_left / 60:.0f} min left")
        if self.bottleneck:
            lines.append(f"bottleneck: {self.bottleneck}")
        if len(self.shares) > _SHOWN_SHARES:
            states = [share.state for share in self.shares]
            counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
            lines.append(f"{len(self.shares)} shares: {counts}")
        few = len(self.shares) <= _SHOWN_SHARES
        lines += [share.as_text() for share in self.shares if few or share.state == "stalled"]
        return "\n".join(lines)

    def as_json(self) -> str:
        """One line of JSON."""
        return json.dumps(asdict(self))


def read_status(config: JobConfig) -> JobStatus:
    """The status of the job in its output folder.

    Raises:
        JobError: the folder holds something else.
        RunError: a shard or journal cannot be read.
    """
    store = ShardStore(config.output_folder)
    job = read_recorded_job(store)
    if job is None:
        return JobStatus("not started")
    try:
        return _read_status(store, job.plan, job.job_hash)
    except (ShardError, OSError) as error:
        raise RunError(str(error)) from None


def _read_status(store: ShardStore, plan: Plan, hashed: str) -> JobStatus:
    progress = _read_all_progress(store)
    running = [record for record in progress.values() if _state(record) == "running"]
    # Journals are read before shards: rows of a shard that is committed in between are seen twice, and count once.
    open_rows = _journalled(store, hashed, plan, {record.writer for record in running})
    committed = store.committed()
    others = _unclaimed(open_rows, plan, {*committed, *(claimed(store.run_folder) if running else ())})
    done = sum(len(plan.rows(shard)) for shard in committed) + len(others) + sum(r.rows_open for r in running)
    done = min(done, plan.num_rows)
    commits = read_commits(store, committed).values()
    failed = sum(commit.failed for commit in commits) + sum(r.failed_open for r in running)
    failed += sum(isinstance(result, RowFailure) for result in others)
    truncated = sum(commit.truncated for commit in commits) + sum(r.truncated_open for r in running)
    truncated += sum(map(is_truncated, others))
    rate = sum(record.rows_per_second for record in running)
    left = plan.num_rows - done
    bottlenecks = [record.bottleneck for record in running]
    begun = bool(progress or committed or open_rows)
    return JobStatus(
        state=_job_state(store, bool(running), begun),
        rows=plan.num_rows,
        done=done,
        failed=failed,
        truncated=truncated,
        left=left,
        shards=plan.num_shards,
        shards_done=len(committed),
        rows_per_second=rate,
        seconds_left=left / rate if rate > 0 else None,
        bottleneck=max(bottlenecks, key=bottlenecks.count, default=""),
        shares=_shares(plan, progress, set(committed)),
    )


def _job_state(store: ShardStore, running: bool, begun: bool) -> str:
    if store.is_complete():
        return "complete"
    if running:
        return "running"
    return "unfinished" if begun else "not started"


def _read_all_progress(store: ShardStore) -> dict[Share, ProgressRecord]:
    """The last progress of every share."""
    found = {WHOLE_JOB: read_progress(store.run_folder / PROGRESS_FILE)}
    for path in files_of_shares(store.run_folder, PROGRESS_FILE):
        share = share_of(path.parent.name)
        if share is not None:
            found[share] = read_progress(path)
    return {share: record for share, record in found.items() if record is not None}


def _state(record: ProgressRecord) -> str:
    if not record.running or has_ended(Holder(**record.holder)):
        return "unfinished"
    silent = time.time() - record.updated
    return "running" if silent < _ALIVE_SECONDS else "stalled" if silent > _STALLED_SECONDS else "unfinished"


def _journalled(store: ShardStore, hashed: str, plan: Plan, running: Collection[str]) -> dict[int, RowResult]:
    """Rows in the journals of processes that do not run; a running process counts its own in its progress."""
    found: dict[int, RowResult] = {}
    for segment in segments(store):
        if segment.writer not in running:
            found.update({result.row: result for _, result in read_rows(segment, hashed)})
    return found


def _unclaimed(rows: dict[int, RowResult], plan: Plan, shards: Collection[int]) -> list[RowResult]:
    """Finished rows of shards that are neither committed nor claimed."""
    return [result for row, result in rows.items() if plan.shard_of(row) not in shards]


def _shares(plan: Plan, progress: dict[Share, ProgressRecord], committed: set[int]) -> list[ShareStatus]:
    latest = max(progress, key=lambda share: progress[share].updated, default=WHOLE_JOB)
    if latest.count == 1:
        return []
    return [
        _share(Share(index, latest.count), plan, progress.get(Share(index, latest.count)), committed)
        for index in range(latest.count)
    ]


def _share(share: Share, plan: Plan, record: ProgressRecord | None, committed: set[int]) -> ShareStatus:
    shards = share.shards(plan.num_shards)
    rows = plan.rows_in(shards)
    done = sum(len(plan.rows(shard)) for shard in shards if shard in committed)
    state = "not started" if record is None else _state(record)
    if done == rows and state != "running":
        state = "complete"
    running = record is not None and state == "running"
    return ShareStatus(
        share=share.label,
        state=state,
        rows=rows,
        done=done,
        left=rows - done,
        rows_per_second=record.rows_per_second if record is not None and running else 0.0,
        bottleneck=record.bottleneck if record is not None and running else "",
        host=str(record.holder.get("host", "")) if record is not None else "",
        silent_seconds=time.time() - record.updated if record is not None else None,
    )
