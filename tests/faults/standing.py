"""Jobs that run with the stand-ins of stand_ins.py: started, killed, and their results read."""

import contextlib
import os
import signal
import time
from dataclasses import dataclass, field, replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import stand_ins
from fork_server import CONTEXT
from stand_ins import Setting, Speed

import jobs

_started: list[BaseProcess] = []


@dataclass
class StandingJob:
    """A job of rows without images.

    Attributes:
        log: every row that an engine generated, in order, a line each.
    """

    config: Path
    speed: Speed = field(default_factory=Speed)
    setting: Setting = field(default_factory=Setting)

    @property
    def log(self) -> Path:
        return self.config.with_name("generated.log")

    @property
    def output(self) -> Path:
        return self.config.with_name("output.txt")

    @property
    def store(self) -> Path:
        return self.config.parent / "out"

    def share(self, index: int, count: int) -> "StandingJob":
        """The same job, of which a run does one share."""
        return replace(self, setting=replace(self.setting, share=(index, count)))

    def start(self) -> BaseProcess:
        arguments = (self.config, self.log, self.output, self.speed, self.setting)
        process = CONTEXT.Process(target=stand_ins.run_command, args=arguments)
        process.start()
        _started.append(process)
        return process

    def run(self, timeout: float = 60) -> tuple[int, str]:
        """Run the job to its end; exit code, and what this run said."""
        before = len(self.said())
        process = self.start()
        process.join(timeout)
        if process.exitcode is None:
            kill_group(process)
            raise AssertionError(f"still running after {timeout} s: {self.said()[before:]}")
        return process.exitcode, self.said()[before:]

    def said(self) -> str:
        return self.output.read_text() if self.output.exists() else ""

    def generated(self) -> list[int]:
        return [int(line) for line in self.log.read_text().split()] if self.log.exists() else []

    def table(self) -> pa.Table:
        return jobs.results(self.config)

    def is_complete(self) -> bool:
        return (self.store / "_SUCCESS").exists()


def make_job(folder: Path, prompts: list[str], speed: Speed | None = None, **tables: Any) -> StandingJob:
    columns = {"uid": [f"u{i:06d}" for i in range(len(prompts))], "prompt": prompts}
    tables = {
        "input": {"image_column": ""},
        "prompt": {"template": "{prompt}"},
        "preprocess": {"workers": 1},
        "errors": {"max_fraction": 1.0, **tables.pop("errors", {})},
        **tables,
    }
    return StandingJob(jobs.write_job(folder, columns, **tables), speed or Speed())


def wait_for_rows(job: StandingJob, count: int, timeout: float = 30) -> None:
    deadline = time.monotonic() + timeout
    while len(job.generated()) < count:
        assert time.monotonic() < deadline, job.said()
        time.sleep(0.005)


def kill_group(process: BaseProcess) -> None:
    """kill -9 to a run and all its processes."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid or 0, signal.SIGKILL)
    with contextlib.suppress(ProcessLookupError):
        os.kill(process.pid or 0, signal.SIGKILL)
    process.join()


def end_all() -> None:
    """End what a test that has failed left running."""
    while _started:
        process = _started.pop()
        if process.exitcode is None:
            kill_group(process)


def children(pid: int) -> list[int]:
    """The processes that a process has started and that are still there."""
    try:
        return [child.pid for child in psutil.Process(pid).children()]
    except psutil.NoSuchProcess:
        return []
