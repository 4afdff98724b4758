"""The processes that work on a job, or did: what their leases and their progress tell. Of clocks, only that of the
storage is asked: those of two hosts differ.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from run_batch.io.coordination.lease import STALE_SECONDS, last_lease, storage_time
from run_batch.io.coordination.process_identity import Holder, has_ended, is_of_this_machine
from run_batch.jobs.job.shares import Share, begun_shares
from run_batch.jobs.watch.progress import PROGRESS_FILE, ProgressRecord, read_progress


@dataclass(frozen=True, slots=True)
class ShareProcess:
    """The process that works on a share, or the last one that did.

    Attributes:
        state: `running`, `loading` (it has its share, and finished no row yet), `stalled` (it has not touched its lease
            for a minute, and has not given it up) or `ended`.
        record: the last progress of the share; while it is loading, of an earlier process.
        host: the host that it runs on or ran on.
        seen: its last sign of life, by the clock of the storage.
        silent_seconds: since then.
    """

    state: str
    record: ProgressRecord | None
    host: str
    seen: float
    silent_seconds: float


def read_processes(run_folder: Path) -> Mapping[Share, ShareProcess]:
    """The last process of each share that was ever begun.

    Raises:
        OSError: the folder cannot be read.
    """
    try:
        now = storage_time(run_folder)
    except OSError:  # who may only read compares with the clock of this host, the best there is
        now = time.time()
    found = {share: _read_process(run_folder / share.folder, share, now) for share in begun_shares(run_folder)}
    return {share: process for share, process in found.items() if process is not None}


def _read_process(folder: Path, share: Share, now: float) -> ShareProcess | None:
    lease = last_lease(folder, share.label)
    record = read_progress(folder / PROGRESS_FILE)
    if lease is None and record is None:
        return None
    holder, touched = lease or (None, 0.0)
    state = "ended" if lease is None else _state(holder, now - touched, record)
    host = holder.host if holder is not None else str(record.holder.get("host", "")) if record is not None else ""
    seen = max(touched, _changed(folder / PROGRESS_FILE))
    return ShareProcess(state, record, host, seen, max(now - seen, 0.0))


def _state(holder: Holder | None, silent: float, record: ProgressRecord | None) -> str:
    """The state of a process whose lease is there."""
    if holder is not None and is_of_this_machine(holder):
        if has_ended(holder):
            return "ended"
    elif silent > STALE_SECONDS:
        return "stalled"
    is_own = record is not None and holder is not None and _is_same(Holder(**record.holder), holder)
    return "running" if record is not None and record.running and is_own else "loading"


def _is_same(one: Holder, other: Holder) -> bool:
    return (one.machine, one.pid, one.started) == (other.machine, other.pid, other.started)


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
