"""Several engines of one machine as one run: one summary, one exit code, and whatever befalls them, the rows of one."""

import json
import os
import random
import signal
import time
from dataclasses import replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import psutil
import pytest
from stand_ins import Setting, Speed
from standing import StandingJob, make_job, wait_for_rows

from run_batch.jobs.job.config import load_config
from run_batch.jobs.watch.status import read_status

ROWS = 300
SLOW = Speed(step_seconds=0.05)
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
    try:
        below = psutil.Process(process.pid).children()
        return [child for child in below if not any("guard.py" in word for word in child.cmdline())]
    except psutil.NoSuchProcess:
        return []


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
    deadline = time.monotonic() + 30
    while len(found := engines(process)) < count:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return found


def kill(process: psutil.Process) -> None:
    if is_alive(process):
        process.kill()


def leases(job: StandingJob) -> list[Path]:
    return list((job.store / ".run_batch").rglob("lease-*"))


def test_two_engines_are_one_run_with_the_results_of_one(tmp_path: Path) -> None:
    job = make(tmp_path)
    code, said = job.run()
    assert code == 0 and job.table()["text"].to_pylist() == texts(ROWS)
    failed = prompts(ROWS).count("bad")
    assert said.count(" rows done, ") == 1
    assert f"{ROWS} of {ROWS} rows done, {failed} failed; this run: {ROWS} rows" in said, said
    assert len(job.generated()) == len(set(job.generated())) == ROWS - failed
    assert job.is_complete() and not leases(job)
    assert not any((job.store / ".run_batch" / "journal").iterdir())
    found = json.loads(read_status(load_config(job.config)).as_json())
    assert (found["state"], found["done"], found["failed"]) == ("complete", ROWS, failed)
    assert [share["share"] for share in found["shares"]] == ["0-of-2", "1-of-2"]


def test_each_engine_has_gpus_cores_and_a_cache_of_its_own(tmp_path: Path) -> None:
    job = make(tmp_path, SLOW)
    process = job.start()
    wait_for_rows(job, 20)
    found = wait_for_engines(process, 2)
    environments = [engine.environ() for engine in found]
    cores = [engine.cpu_affinity() for engine in found]
    if len(os.sched_getaffinity(0)) >= 2:
        assert not set(cores[0]) & set(cores[1])
    del environments  # of a fork: that of its parent
    process.join(60)
    assert process.exitcode == 0
