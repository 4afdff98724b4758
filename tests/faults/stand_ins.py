"""Runs with stand-ins for engine and workers: one starts in a tenth of a second and can be killed by the hundred.

Both are real processes, see stand_in_engine.py and stand_in_workers.py, which also say how prompts steer them; all else
is the product: the pipeline, the pool, journal, shards, lease, supervisor.
"""

import os
import resource
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import disks
import forked_engines
import power
import pyarrow as pa
import s3fs
import sudden_death
from stand_in_engine import InProcessEngine, Speed, StandInEngine
from stand_in_workers import PromptSpec, forked_pool

from run_batch.io import transient
from run_batch.io.coordination import lease as lease
from run_batch.io.outputs import journal
from run_batch.jobs import command
from run_batch.jobs.engine import restartable_engine
from run_batch.jobs.engines import fleet, run_engines
from run_batch.jobs.job.config import JobConfig
from run_batch.jobs.job.prepare import prepare
from run_batch.jobs.job.shares import Share
from run_batch.jobs.machine import gpus
from run_batch.jobs.mapping import backpressure, row_deadlines, shared_memory
from run_batch.jobs.runner import pipeline, run_job

# Imports that a run does late are done here once, not in every run that is forked: torch, by shared_memory, and what
# pyarrow loads when it is first asked for a plain list; and the client of object stores.
assert shared_memory and s3fs
pa.array([1]).to_pylist()


@dataclass(frozen=True)
class Setting:
    """What a run is started with, besides its job.

    Attributes:
        in_process: the engine counts as one that the watchdog cannot kill.
        hangup_ignored: as under nohup.
        durable: where to keep what a power cut would leave of the output folder.
        share: index and count.
        rows_ahead: mapped rows that may wait for the engine.
        quota: bytes that the output folder may take.
        failing: calls to the output folder that fail.
        file_bytes: the largest file that the process may write.
        lost_images: see PromptSpec.
        load_seconds: how long the engine loads.
        dies_before_change: kill the process before this change of its output folder, counted from 1.
        stalled_seconds: how long the storage does not answer the journal, from its first sync on.
        environment: variables that are set.
        gpus: of the machine; none: as on a CPU.
        quiet: as with `--quiet`.
        broken_gpu: an engine on this one (`*`: on any) fails: `load` while it loads, `die` with its process, a
            moment later; `refuse` by the job's fault.
    """

    retry_failed: bool = False
    in_process: bool = False
    hangup_ignored: bool = False
    durable: Path | None = None
    share: tuple[int, int] = (0, 1)
    rows_ahead: int = backpressure.MAX_WAITING_ROWS
    quota: int | None = None
    failing: disks.Failing | None = None
    file_bytes: int | None = None
    lost_images: Path | None = None
    load_seconds: float = 0.0
    dies_before_change: int | None = None
    stalled_seconds: float = 0.0
    environment: tuple[tuple[str, str], ...] = ()
    gpus: tuple[str, ...] = ()
    broken_gpu: tuple[str, str] = ("", "")
    quiet: bool = True


def _stall(seconds: float) -> None:
    """Let the storage stall: the first sync of a journal, and all others, wait until `seconds` have passed."""
    until, sync = 0.0, journal._Segment.sync

    def stalling(segment: Any) -> None:
        nonlocal until
        until = until or time.monotonic() + seconds
        time.sleep(max(0.0, until - time.monotonic()))
        sync(segment)

    journal._Segment.sync = stalling  # type: ignore[method-assign]


def run_command(config_path: Path, log: Path, output: Path, speed: Speed, setting: Setting) -> None:
    """`run-batch --config` with stand-ins, as a process group of its own; ends the process."""
    os.setsid()
    os.environ.update(setting.environment)
    signal.signal(signal.SIGHUP, signal.SIG_IGN if setting.hangup_ignored else signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if setting.durable is not None:
        power.watch(config_path.parent / "out", setting.durable)
    if setting.quota is not None:
        disks.limit(config_path.parent / "out", setting.quota)
    if setting.failing is not None:
        disks.fail(config_path.parent / "out", setting.failing)
    if setting.file_bytes is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (setting.file_bytes, setting.file_bytes))
    if setting.dies_before_change is not None:
        sudden_death.die_before_change(config_path.parent / "out", setting.dies_before_change)
    if setting.stalled_seconds:
        _stall(setting.stalled_seconds)
    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w", buffering=1)
    pipeline.WorkerPool = forked_pool(PromptSpec(setting.lost_images))  # type: ignore[misc]
    run_job.result_metadata = lambda job: {}
    backpressure.MAX_WAITING_ROWS = setting.rows_ahead
    # Nothing here hangs on how long these are: the stand-ins ignore signals, and leases are of this machine.
    restartable_engine._SECONDS_FOR_A_SIGNAL, lease.REFRESH_SECONDS = 0.02, 1.0
    row_deadlines._FIRST_SECONDS = 0.0  # nothing is loaded with a worker's first rows
    transient.REMOTE_PAUSES, transient.STORAGE_PAUSES = (0.05, 0.1), (0.01, 0.02)
    kind = InProcessEngine if setting.in_process else StandInEngine

    def start_engine(config: JobConfig) -> Any:
        time.sleep(setting.load_seconds)
        if setting.broken_gpu[0] in ("*", os.environ.get("CUDA_VISIBLE_DEVICES")):
            forked_engines.break_down(setting.broken_gpu[1])
        return kind(log, speed)

    def run(config: JobConfig, summary: Any) -> int:
        job = prepare(config, Share(*setting.share))
        if setting.gpus:
            os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(setting.gpus)
        places = gpus.engine_places(config, os.environ)
        options = run_engines.RunOptions(setting.quiet, retry_failed=setting.retry_failed)
        return run_engines.run_on_machine(
            job, places, options, summary, start_engine, forked_engines.fork_run(start_engine)
        )

    gpus.is_cpu_build = lambda: not setting.gpus
    fleet._PAUSES = (0.05, 0.1)
    command.run_command(run, config_path, (), verbose=False)
