"""The processes that work on a job, or did: what their leases and their progress tell. Of clocks, only that of the
storage is asked: those of two hosts differ.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from run_batch.io.coordination.lease import STALE_SECONDS, last_lease, storage_time
from run_batch.io.coordination.process_identity import Holder, has_ended
from run_batch.jobs.job.shares import WHOLE_JOB, Share, begun_shares, engines_leases
from run_batch.jobs.watch.progress import PROGRESS_FILE, ProgressRecord, read_progress
from run_batch.jobs.watch.run_end import END_FILE, read_end
from run_batch.jobs.watch.running_rates import WHOLE_JOB_LABEL

# A process writes its progress every second, unless a step of its engine takes longer, the engine is started again, or
# the storage stalls.
_SILENT_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class ShareProcess:
    """The process that works on a share, or the last one that did.

    Attributes:
        state: `running`; `loading` (it has its share, and its engine loads); `waiting` (it does no row now, and
            has not ended); `stalled` (it has not touched its lease for a minute, and has not given it up); or `ended`.
        record: the last progress of the share; while it is loading, of an earlier process.
        host: the host that it runs on or ran on.
        seen: its last sign of life, by the clock of the storage.
        silent_seconds: since then.
        why: what it waits for, or the message that it has ended with; empty where nothing is known.
        exit_code: of one that has ended; negative, of one that a signal has killed. None where it left none.
        ended: when it ended, in seconds since the epoch; None where it left no word of that.
    """

    state: str
    record: ProgressRecord | None
    host: str
    seen: float
    silent_seconds: float
    why: str = ""
    exit_code: int | None = None
    ended: float | None = None

    @property
    def tells(self) -> bool:
        """Whether it is there, and its progress tells of what it does."""
        return self.state in ("running", "waiting") and self.record is not None and self.record.running


def read_processes(run_folder: Path) -> Mapping[Share, ShareProcess]:
    """The last process of each share that was ever begun.

    Raises:
        OSError: the folder cannot be read.
    """
    now = _time_at(run_folder)
    starters = _starters(run_folder, now)
    shares = begun_shares(run_folder)
    found = {share: _read_process(run_folder / share.folder, share, now, starters) for share in shares}
    return {share: process for share, process in found.items() if process is not None}


def living_processes(run_folder: Path) -> Mapping[str, str]:
    """What the processes that have not ended do, by the label of their ProcessRun; see ShareProcess for what.

    Raises:
        OSError: the folder cannot be read.
    """
    return {
        WHOLE_JOB_LABEL if share == WHOLE_JOB else share.label: process.state
        for share, process in read_processes(run_folder).items()
        if process.state != "ended"
    }


def has_starter(run_folder: Path) -> bool:
    """Whether a process runs several engines on a machine, as far as can be told.

    Raises:
        OSError: the folder cannot be read.
    """
    return bool(_starters(run_folder, _time_at(run_folder)))


def _time_at(run_folder: Path) -> float:
    try:
        return storage_time(run_folder)
    except OSError:  # who may only read compares with the clock of this host, the best there is
        return time.time()


def _starters(run_folder: Path, now: float) -> list[Holder]:
    """The processes that run several engines on a machine, without those that have ended or give no sign of life."""
    leases = (last_lease(run_folder, name) for name in engines_leases(run_folder))
    fresh = (lease[0] for lease in leases if lease is not None and now - lease[1] <= STALE_SECONDS)
    return [holder for holder in fresh if holder is not None and not has_ended(holder)]


def _read_process(folder: Path, share: Share, now: float, starters: Sequence[Holder]) -> ShareProcess | None:
    lease = last_lease(folder, share.label)
    record, end = read_progress(folder / PROGRESS_FILE), read_end(folder)
    if lease is None and record is None and end is None:
        return None
    holder, touched = lease or (None, 0.0)
    told = max(_changed(folder / PROGRESS_FILE), _changed(folder / END_FILE))
    seen = max(touched, told)
    state, why = "ended", end.why if end is not None else ""
    if lease is None and end is None and starters:
        state = "loading"  # its engine is started again
    if holder is not None and not has_ended(holder):
        own = record if record is not None and _is_same(Holder(**record.holder), holder) else None
        if now - touched > STALE_SECONDS:
            state, why = "stalled", ""
        elif any(_is_same(holder, starter) for starter in starters):
            state, why = "waiting", f"another engine; its own has died{f': {why}' if why else ''}"
        else:
            state, why = _state(own, now - told)
    elif lease is not None and holder is None and now - touched <= STALE_SECONDS:
        state, why = "loading", ""  # it has not written its name yet
    host = holder.host if holder is not None else end.host if end is not None else _host_of(record)
    code, ended = (end.exit_code, end.time) if end is not None and state == "ended" else (None, None)
    return ShareProcess(state, record, host, seen, max(now - seen, 0.0), why, code, ended)


def _state(own: ProgressRecord | None, silent: float) -> tuple[str, str]:
    """The state of a process that is there, by its own progress, and what it waits for."""
    if own is None:
        return "loading", ""
    if own.waiting_for:
        return "waiting", own.waiting_for
    if not own.running:
        return "loading", ""  # for its next work
    if silent > _SILENT_SECONDS:
        return "waiting", f"its engine or its storage for {silent:.0f} s"
    return "running", ""


def _host_of(record: ProgressRecord | None) -> str:
    return str(record.holder.get("host", "")) if record is not None else ""


def _is_same(one: Holder, other: Holder) -> bool:
    return (one.machine, one.pid, one.started) == (other.machine, other.pid, other.started)


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
