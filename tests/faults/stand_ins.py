"""Stand-ins for the engine and the workers, so that a run starts in a tenth of a second and can be killed by the
hundred. Both are real processes; all else is the product: the pipeline, the pool, journal, shards, lease, supervisor.

Prompts steer the engine: `poison` kills it, `crash` kills the whole run, `hang` keeps it from ever answering, `bug`
lets run-batch's own code fail, and `bad` and `missing` fail while they are mapped. `deadly N FILE` kills its worker N
times, one byte of FILE for each; `stuck N FILE` hangs N times while it is mapped. `large N` is mapped to a tensor of N
bytes, of which the engine's process has a copy.
"""

import contextlib
import ctypes
import functools
import gc
import os
import pickle
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import Any

import disks
import forked_engines
import power
import pyarrow as pa
import s3fs
import sudden_death
import torch
from fork_server import close_all_but

from run_batch.io import transient
from run_batch.io.coordination import lease as lease
from run_batch.io.inputs.source import RowBatch
from run_batch.io.outputs import journal
from run_batch.jobs import command
from run_batch.jobs.engine import restartable_engine
from run_batch.jobs.engine.vllm_engine import EngineDied
from run_batch.jobs.engines import fleet, run_engines
from run_batch.jobs.job.config import JobConfig
from run_batch.jobs.job.prepare import prepare
from run_batch.jobs.job.rows import Generation, MappedRow, RowFailure
from run_batch.jobs.job.shares import Share
from run_batch.jobs.machine import gpus
from run_batch.jobs.mapping import backpressure, row_deadlines, shared_memory
from run_batch.jobs.mapping.worker_main import serve
from run_batch.jobs.mapping.worker_memory import PLENTY, WorkerMemory
from run_batch.jobs.mapping.worker_pool import WorkerPool
from run_batch.jobs.mapping.worker_process import WorkerProcess, worker_environment
from run_batch.jobs.runner import pipeline, run_job

# Imports that a run does late are done here once, not in every run that is forked: torch, by shared_memory, and what
# pyarrow loads when it is first asked for a plain list; and the client of object stores.
assert shared_memory and s3fs
pa.array([1]).to_pylist()


@dataclass(frozen=True)
class Speed:
    """How a stand-in engine runs.

    Attributes:
        max_num_seqs: rows that run at once.
        step_seconds: duration of one step; a row takes one to four.
        tame: whether prompts that steer the engine are taken for plain text.
    """

    max_num_seqs: int = 8
    step_seconds: float = 0.01
    tame: bool = False


class Forked:
    """A child process that runs a function on its end of a pipe, with the methods of subprocess.Popen that are used."""

    def __init__(self, serve: Callable[[Connection], None]) -> None:
        ours, theirs = Pipe(duplex=True)
        self.connection = ours
        self.pid = os.fork()
        if self.pid:
            theirs.close()
            return
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        # What is garbage now must not be collected: it would close descriptors by numbers that are new ones then.
        gc.freeze()
        # Only its own end: it has to see when the parent is gone.
        close_all_but(theirs.fileno())
        with contextlib.suppress(EOFError, OSError):
            serve(theirs)
        os._exit(0)

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    def wait(self) -> int:
        with contextlib.suppress(ChildProcessError):
            return os.waitpid(self.pid, 0)[1]
        return 0


@dataclass(frozen=True)
class PromptSpec:
    """Stands in for WorkerSpec: a row's prompt is all that the engine takes.

    Attributes:
        lost_images: where set, no row finds its image; each row is logged there.
        memory: what the pool lets a worker take.
    """

    lost_images: Path | None = None
    memory: WorkerMemory = PLENTY

    def load(self) -> "PromptSpec":
        # A fork has no environment of its own.
        malloc = worker_environment(self.memory)
        for option, name in ((-1, "MALLOC_TRIM_THRESHOLD_"), (-3, "MALLOC_MMAP_THRESHOLD_")):
            ctypes.CDLL(None).mallopt(option, int(malloc[name]))
        return self

    def map_groups(self, batch: RowBatch) -> Iterator[Iterator[MappedRow | RowFailure]]:
        return map(lambda row: iter([row]), self.map(batch))  # which hold no row that has been taken

    def map(self, batch: RowBatch) -> Iterator[MappedRow | RowFailure]:
        if self.lost_images is not None:
            with open(self.lost_images, "a") as log:
                log.writelines(f"{row}\n" for row in range(batch.start, batch.stop))
            return map(no_image, range(batch.start, batch.stop))
        return map(map_row, range(batch.start, batch.stop), batch.records.column("prompt").to_pylist())


def map_row(row: int, prompt: str) -> MappedRow | RowFailure:
    if prompt.startswith("deadly") and is_one_more(prompt):
        os._exit(9)
    if prompt.startswith("stuck") and is_one_more(prompt):
        time.sleep(10_000)
    if prompt == "missing":
        return no_image(row)
    if prompt.startswith("large"):
        return MappedRow(row, (prompt, torch.full((int(prompt.split()[1]),), 1, dtype=torch.uint8)), {})
    return RowFailure(row, "bad_row", "it says so") if prompt == "bad" else MappedRow(row, prompt, {})


def is_one_more(prompt: str) -> bool:
    """Whether the file of a prompt `WHAT TIMES FILE` has fewer bytes than TIMES; adds one then."""
    _, times, file = prompt.split()
    with open(file, "ab") as log:
        if log.tell() >= int(times):
            return False
        log.write(b".")
        return True


def no_image(row: int) -> RowFailure:
    return RowFailure(row, "image_not_found", f"no file {row}.jpg in input.media_root")


def fork_workers(spec: Any, count: int) -> list[WorkerProcess]:
    """Start workers as `start_workers` does, as forks of this process: in milliseconds, with all imports done."""
    workers = []
    for _ in range(count):
        process: Any = Forked(lambda connection: serve(connection, ()))
        process.connection.send_bytes(pickle.dumps(spec))
        workers.append(WorkerProcess(process, process.connection))
    return workers


def forked_pool(spec: PromptSpec) -> Any:
    """What makes a WorkerPool whose workers are forks that map by `spec`, whatever job it is made for."""

    def start(given: Any, count: int) -> list[WorkerProcess]:
        return fork_workers(replace(spec, memory=given.memory), count)

    return functools.partial(WorkerPool, start=start)


ForkedPool = forked_pool(PromptSpec())


class StandInEngine:
    """Generates `text of PROMPT` in a process of its own, and logs every row that it has generated."""

    def __init__(self, log: Path, speed: Speed) -> None:
        self.max_num_seqs = speed.max_num_seqs
        self.unfinished = self.running = 0
        self._added: list[tuple[int, str, int]] = []
        self._process = Forked(lambda connection: _generate(connection, log, speed))
        log.with_suffix(".engine").write_text(str(self._process.pid))

    def add(self, mapped: MappedRow) -> RowFailure | None:
        prompt, *tensors = mapped.engine_input if isinstance(mapped.engine_input, tuple) else (mapped.engine_input,)
        self._added.append((mapped.row, prompt, sum(tensor.nbytes for tensor in tensors)))
        self.unfinished += 1
        return None

    def step(self) -> list[Generation]:
        try:
            self._process.connection.send(self._added)
            self._added = []
            finished: list[Generation] = self._process.connection.recv()
        except (EOFError, OSError):
            raise EngineDied("its process is dead") from None
        if any(result.texts == ("text of bug",) for result in finished):
            raise KeyError("a bug")
        self.unfinished -= len(finished)
        return finished

    def kill(self) -> bool:
        self._process.kill()
        return True

    def close(self) -> None:
        self._process.kill()
        self._process.wait()

    discard = close


def _generate(connection: Connection, log: Path, speed: Speed) -> None:
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    queue: list[list[Any]] = []
    while True:
        queue += [[row, prompt, 1 + row % 4, b"1" * nbytes] for row, prompt, nbytes in connection.recv()]
        time.sleep(speed.step_seconds)
        running = queue[: speed.max_num_seqs]
        for request in running:
            if not speed.tame:
                _misbehave(request[1], connection)
            request[2] -= 1
        done = [request for request in running if request[2] == 0]
        queue = [request for request in queue if request[2] > 0]
        if done:
            os.write(file, b"".join(b"%d\n" % row for row, *_ in done))
        connection.send([Generation(row, (f"text of {prompt}",), "stop", 3, 4) for row, prompt, *_ in done])


def _misbehave(prompt: str, connection: Connection) -> None:
    if prompt.startswith("poison"):
        os._exit(9)
    if prompt.startswith("crash"):
        os.killpg(os.getpgid(0), signal.SIGKILL)
    if prompt.startswith("hang"):
        # Until the run is gone: it sends nothing more, so what it can be read for is the end of the pipe.
        connection.poll(1000)
        os._exit(0)


class InProcessEngine(StandInEngine):
    """One that the watchdog cannot kill: as vLLM's in this process."""

    def kill(self) -> bool:
        return False


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
