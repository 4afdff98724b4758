"""Jobs with several engines, and the processes of their runs."""

import time
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import psutil
from stand_ins import Setting, Speed
from standing import StandingJob, make_job

ROWS = 300
SLOW = Speed(step_seconds=0.05)
BRISK = Speed(step_seconds=0.03)
TWO = Setting(gpus=("0", "GPU-b"), rows_ahead=16)


def prompts(count: int) -> list[str]:
    return ["bad" if i % 37 == 5 else f"prompt {i}" for i in range(count)]


def make(folder: Path, speed: Speed | None = None, rows: int = ROWS, **tables: Any) -> StandingJob:
    tables = {"output": {"rows_per_shard": 10}, **tables}
    return replace(make_job(folder, prompts(rows), speed, **tables), setting=TWO)


def texts(rows: int) -> list[str | None]:
    return [None if prompt == "bad" else f"text of {prompt}" for prompt in prompts(rows)]


def engines(process: BaseProcess) -> list[psutil.Process]:
    """The processes of a run's engines."""
    return [child for child in _children(process) if not _is_guard(child)]


def guards(process: BaseProcess) -> list[psutil.Process]:
    """The guard of a run, once there is one."""
    return [child for child in _children(process) if is_alive(child) and _is_guard(child)]


def _children(process: BaseProcess) -> list[psutil.Process]:
    try:
        return psutil.Process(process.pid).children()
    except psutil.NoSuchProcess:
        return []


def _is_guard(process: psutil.Process) -> bool:
    try:
        return any("guard.py" in word for word in process.cmdline())
    except psutil.NoSuchProcess:
        return False


def all_of(process: BaseProcess) -> list[psutil.Process]:
    """All processes of a run: itself, its guard, the engines with their workers."""
    try:
        parent = psutil.Process(process.pid)
        return [parent, *parent.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def wait_until_gone(processes: list[psutil.Process], seconds: float = 5) -> None:
    _, alive = psutil.wait_procs([p for p in processes if is_alive(p)], seconds)
    assert not [process for process in alive if is_alive(process)], "still running"


def is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_for_engines(process: BaseProcess, count: int) -> list[psutil.Process]:
    wait_until(lambda: len(engines(process)) >= count)
    return engines(process)


def note(job: StandingJob, engine: int) -> Path:
    """Where an engine of two notes the rows that it runs."""
    label = f"{engine}-of-2"
    return job.store / ".run_batch" / "shares" / label / f"running-{label}"


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def kill(process: psutil.Process) -> None:
    if is_alive(process):
        process.kill()


def leases(job: StandingJob) -> list[Path]:
    return list((job.store / ".run_batch").rglob("lease-*"))
