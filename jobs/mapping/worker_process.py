"""Worker processes as the engine's process sees them: started, told apart by their pipes, ended."""

import collections
import contextlib
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, Pipe
from multiprocessing.reduction import recv_handle
from typing import TYPE_CHECKING, TypeAlias

from run_batch.io.inputs.source import RowBatch
from run_batch.jobs.mapping.row_clock import SeenClock, open_page
from run_batch.jobs.mapping.worker_main import WorkerReady, WorkerSpec
from run_batch.jobs.mapping.worker_memory import WorkerMemory
from run_batch.jobs.watch.run_messages import say

if TYPE_CHECKING:
    from run_batch.jobs.mapping.row_arena import BorrowedArena
    from run_batch.jobs.mapping.shared_memory import Received

_ENVIRONMENT = {
    # One core per worker: the pool is what runs in parallel.
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
# By default glibc returns the memory of decoded images to the kernel after each batch, and the kernel clears it again
# for the next: a tenth of the time that a large image takes. Blocks above 32 MiB are still returned.
_LARGE_BLOCK = 32 << 20

# A killed process is dead within less, unless it hangs in the kernel.
_DEATH_SECONDS = 2.0


@dataclass(slots=True, eq=False)
class WorkerProcess:
    """One worker process and the batches that it holds.

    Attributes:
        process: the process that was started; None for a copy that another worker has forked.
        connection: the pool's end of the worker's pipe.
        batches: sent to the worker and not returned yet, in the order in which it maps them.
        loaded: whether the worker has said that it is ready for batches.
        pidfd: refers to the process of a copy, once that is ready; a process id alone could be reused.
        original: the worker that this one is a copy of; None for one that was started.
        clock: what the worker is doing.
        arena: the memory of its mapped rows, once it is ready; None where it has none.
    """

    process: subprocess.Popen[bytes] | None
    connection: Connection
    batches: collections.deque[RowBatch] = field(default_factory=collections.deque)
    loaded: bool = False
    pidfd: int | None = None
    original: "WorkerProcess | None" = None
    clock: SeenClock = field(default_factory=SeenClock)
    arena: "BorrowedArena | None" = None

    def receive(self) -> "Received":
        """Wait for what the worker sends.

        Raises:
            EOFError, OSError: its pipe is closed, or the memory of its rows cannot be had.
        """
        # Imports torch, which takes a second: not before the workers have been started.
        from run_batch.jobs.mapping.shared_memory import receive

        received = receive(self.connection, self.arena)
        if isinstance(received.value, WorkerReady):
            self._ready(received.value)
        return received

    def _ready(self, ready: WorkerReady) -> None:
        if ready.arena_bytes:
            from run_batch.jobs.mapping.row_arena import BorrowedArena

            descriptor = recv_handle(self.connection)
            try:
                self.arena = BorrowedArena(descriptor, ready.arena_bytes)
            finally:
                os.close(descriptor)
        if ready.clock is not None:
            with contextlib.suppress(OSError):  # it has died already
                self.clock.page = open_page(ready.pid, ready.clock)
        if self.process is None:
            # A copy that has died already has no process; end of file on its pipe reports the death.
            with contextlib.suppress(ProcessLookupError):
                self.pidfd = os.pidfd_open(ready.pid)
        self.loaded = True

    def end(self) -> None:
        """Kill the process, if it still runs, and close the pipe. One that hangs in the kernel is left behind."""
        if self.process is not None:
            self.process.kill()
            waiting = threading.Thread(target=self.process.wait, name="worker-end", daemon=True)
            waiting.start()
            waiting.join(_DEATH_SECONDS)
        if self.pidfd is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
            os.close(self.pidfd)
            self.pidfd = None
        self.connection.close()


def lost_with(dead: WorkerProcess, workers: Sequence[WorkerProcess]) -> list[WorkerProcess]:
    """A dead worker, with those that can come no more: where it was to fork others, or to be forked, all of these.

    One process is to be started for them all: one for each would import torch and vLLM as many times.
    """
    original = dead.original or dead
    if dead.loaded or original.loaded:
        return [dead]
    group = [worker for worker in workers if worker is original or worker.original is original]
    return [worker for worker in group if not worker.loaded]


def tell_death(dead: WorkerProcess, deaths: int) -> None:
    """Tell people that a worker has died, ever more rarely: rows that kill theirs may be many.

    Args:
        deaths: of all workers of the run so far.
    """
    if deaths & (deaths - 1):
        return
    rows = sum(batch.records.num_rows for batch in dead.batches)
    times = f" ({deaths} have died so far)" if deaths > 1 else ""
    then = f"maps the {rows} rows that it had" if rows else "takes its place; it had no rows"
    say(f"a worker process has died{times}; another one {then}")


def worker_environment(memory: WorkerMemory) -> dict[str, str]:
    """The environment variables that a worker process is started with, besides those of this process."""
    return {
        **_ENVIRONMENT,
        "MALLOC_TRIM_THRESHOLD_": str(memory.kept_bytes),
        "MALLOC_MMAP_THRESHOLD_": str(min(_LARGE_BLOCK, memory.kept_bytes // 4)),
    }


StartWorkers: TypeAlias = Callable[[WorkerSpec, int], list[WorkerProcess]]


def start_workers(spec: WorkerSpec, count: int) -> list[WorkerProcess]:
    """Start `count` workers without waiting until they are ready: one process, which forks the others once loaded."""
    pipes = [Pipe(duplex=True) for _ in range(count)]
    descriptors = [theirs.fileno() for _, theirs in pipes]
    arguments = ", ".join(map(str, descriptors))
    with _ctrl_c_blocked():
        process = subprocess.Popen(
            [sys.executable, "-c", f"from run_batch.jobs.mapping.worker_main import main; main({arguments})"],
            pass_fds=descriptors,
            stdin=subprocess.DEVNULL,
            env={**os.environ, **worker_environment(spec.memory)},
        )
    return serving(process, pipes, spec)


@contextlib.contextmanager
def _ctrl_c_blocked() -> Iterator[None]:
    """Around the start of a process that no Ctrl-C is to reach: it ignores them, but not yet while it imports."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def serving(
    process: subprocess.Popen[bytes], pipes: Sequence[tuple[Connection, Connection]], spec: WorkerSpec
) -> list[WorkerProcess]:
    """The workers of a process that has been started with the second ends of `pipes`; it is sent what it is to do."""
    for _, theirs in pipes:
        theirs.close()
    first, *others = (ours for ours, _ in pipes)
    first.send_bytes(pickle.dumps(spec))
    original = WorkerProcess(process, first)
    return [original, *(WorkerProcess(None, ours, original=original) for ours in others)]
