"""The status of each share of a job, and how a state is told."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from signal import Signals

from run_batch.jobs.job.plan import Plan
from run_batch.jobs.job.shares import WHOLE_JOB, Share
from run_batch.jobs.watch.share_processes import ShareProcess


@dataclass(frozen=True, slots=True)
class State:
    """What the processes of a job or of a share do; docs/status.md has the states.

    Attributes:
        name: of the state.
        host: the host that the process runs on, or ran on last; empty if there was none.
        last_seen: its end, or its last sign of life, in seconds since the epoch; None if there was none.
        silent_seconds: since then, of a process that has stalled.
        why: what it waits for, or the message that it has stopped with.
        exit_code: of a process that has stopped; negative, of one that a signal has killed. None where it left none.
    """

    name: str
    host: str = ""
    last_seen: float | None = None
    silent_seconds: float | None = None
    why: str = ""
    exit_code: int | None = None

    @classmethod
    def of(cls, name: str, process: ShareProcess) -> "State":
        """A state in which a process is."""
        silent = process.silent_seconds if name == "stalled" else None
        return cls(name, process.host, process.ended or process.seen, silent, process.why, process.exit_code)

    def as_text(self) -> str:
        """The state and what is known of it, without the message that it has stopped with."""
        if self.name == "stalled":
            return f"stalled: no sign of life from {self.host} for {self.silent_seconds:.0f} s"
        if self.name == "waiting" and self.why:
            return f"waiting for {self.why}"
        if self.name != "stopped" or self.last_seen is None:
            return self.name
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.last_seen))
        return f"stopped (host {self.host}, {when}, {_end(self.exit_code)})"


def _end(code: int | None) -> str:
    if code is None:
        return "killed: it left no exit code"
    return f"exit code {code}" if code >= 0 else f"killed by {Signals(-code).name}"


@dataclass(frozen=True, slots=True)
class ShareStatus:
    """The status of one share, of a job that runs in shares.

    Attributes:
        share: `INDEX-of-COUNT`.
        state, host, last_seen, silent_seconds, why, exit_code: see State.
        rows, done, left: of the share's own shards; only those in committed shards are done.
        rows_per_second: 0 unless it runs.
        bottleneck: see JobStatus.
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
    last_seen: float | None
    why: str
    exit_code: int | None

    def as_text(self) -> str:
        """A line for people."""
        state = State(self.state, self.host, self.last_seen, self.silent_seconds, self.why, self.exit_code)
        line = f"share {self.share}: {state.as_text()}, {self.done} of {self.rows} rows committed"
        if self.state == "running":
            line += f", {self.rows_per_second:.1f} rows/s on {self.host}"
        return line


def share_statuses(
    plan: Plan, processes: Mapping[Share, ShareProcess], rows_of: Mapping[int, int]
) -> list[ShareStatus]:
    """The status of each share, of the number of shares that was started last; none if the job does not run in shares.

    Args:
        rows_of: rows of each committed shard.
    """
    latest = max(processes, key=lambda share: processes[share].seen, default=WHOLE_JOB)
    if latest.count == 1:
        return []
    others = any(process.state != "ended" for process in processes.values())
    shares = (Share(index, latest.count) for index in range(latest.count))
    return [_share(share, plan, processes.get(share), rows_of, others) for share in shares]


def _share(
    share: Share, plan: Plan, process: ShareProcess | None, rows_of: Mapping[int, int], others: bool
) -> ShareStatus:
    shards = share.shards(plan)
    rows = plan.rows_in(shards)
    done = sum(rows_of.get(shard, 0) for shard in shards)
    state = _state(process, done == rows, others)
    record = process.record if process is not None and state.name == "running" else None
    return ShareStatus(
        share=share.label,
        state=state.name,
        rows=rows,
        done=done,
        left=rows - done,
        rows_per_second=record.rows_per_second if record is not None else 0.0,
        bottleneck=record.bottleneck if record is not None else "",
        host=state.host,
        silent_seconds=state.silent_seconds,
        last_seen=state.last_seen,
        why=state.why,
        exit_code=state.exit_code,
    )


def _state(process: ShareProcess | None, is_done: bool, others: bool) -> State:
    """The state of a share.

    Args:
        process: its last one, if any.
        is_done: all its rows are committed.
        others: other processes work on the job, or may do so.
    """
    if process is None:
        return State("complete" if is_done else "not started")
    if is_done and process.state != "running":
        return State.of("complete", process)
    if process.state != "ended":
        return State.of(process.state, process)
    if process.exit_code == 0 and others:
        return replace(State.of("waiting", process), why="shares that have taken its last shards", exit_code=None)
    return State.of("stopped", process)
