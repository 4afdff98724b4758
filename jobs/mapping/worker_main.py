"""One worker process: takes batches of input rows from its pipe and returns them mapped, until the pipe is closed.

Started by run_batch.jobs.mapping.worker_process, which passes the descriptor of the worker's end of the pipe.
"""

import contextlib
import gc
import logging
import os
import pickle
import resource
import select
import signal
import sys
import threading
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.reduction import send_handle
from typing import TYPE_CHECKING

import pyarrow as pa

from run_batch.io.inputs.source import RowBatch
from run_batch.io.media.media_root import MediaRoot
from run_batch.io.transient import may_pass
from run_batch.jobs.job.config import JobConfig
from run_batch.jobs.job.errors import JobError
from run_batch.jobs.job.prompt_column import PromptColumn
from run_batch.jobs.mapping.row_clock import MAPPING_ROW, clock
from run_batch.jobs.mapping.worker_memory import PLENTY, WorkerMemory
from run_batch.model.checkpoint.settings import SettingsError
from run_batch.model.declaration import DeclarationError, JobFault
from run_batch.model.failure_reports import Report, is_own_bug
from run_batch.model.images.mapped_memory import map_into
from run_batch.model.plugin import PluginError, register

if TYPE_CHECKING:
    from run_batch.jobs.mapping.row_arena import RowArena
    from run_batch.jobs.mapping.row_mapper import RowMapper

# Of mapped rows that are sent together: many small ones, or a large one, whose memory is freed when it is finished.
PART_BYTES = 8 << 20
# A worker with nothing to do looks so often whether mapped rows have been dropped, whose memory counts no more; after
# so many times, it gives all free memory to the kernel.
_LOOK_SECONDS, _LOOKS = 0.1, 10
# Added to the worker's nice value, so that the engine gets the cores first.
_NICENESS = 5


@dataclass(frozen=True, slots=True)
class WorkerSpec:
    """What a worker needs to know of the job; sent to it pickled.

    Attributes:
        config: the job's configuration.
        schema: of the whole input.
        media_root: the folder that image paths must stay inside; None when paths are not allowed.
        prompt_column: what the prompt column holds.
        memory: what the worker may take.
    """

    config: JobConfig
    schema: pa.Schema
    media_root: MediaRoot | None
    prompt_column: PromptColumn = PromptColumn.TEXTS
    memory: WorkerMemory = PLENTY

    def load(self) -> "RowMapper":
        """Load the model's configs and tokenizer, in the worker process.

        Raises:
            JobError, PluginError, DeclarationError: the job's configuration, or what it names, is invalid.
        """
        import cv2
        import torch

        from run_batch.model.images.image_memory import use_memory
        from run_batch.model.images.resize import compile_resize
        from run_batch.model.mappers.plane_resize import allow_plane_resize

        # The workers themselves run in parallel: threads within them would only take turns.
        cv2.setNumThreads(1)
        torch.set_num_threads(1)
        pa.set_cpu_count(1)
        pa.set_io_thread_count(1)
        register()
        from run_batch.jobs.mapping.row_mapper import RowMapper

        use_memory(self.memory.cache_bytes, self.memory.decode_bytes, self.memory.turns, clock.resting)
        may_hold_images = self.prompt_column is not PromptColumn.TEXTS or self.config.prompt.examples
        if self.config.input.image_column or may_hold_images:
            # Before the mapper, which tries a bulk mapper on an image: by the code that rows will go through.
            compile_resize()
            allow_plane_resize()
        return RowMapper(self.config, self.schema, self.media_root, self.prompt_column, self.memory)


@dataclass(frozen=True, slots=True)
class WorkerReady:
    """What a worker sends once it takes batches.

    Attributes:
        pid: its process id; the pool has started only the first worker itself.
        clock: the descriptor of its clock's page in that process.
        arena_bytes: of its arena, whose descriptor follows; 0 for no arena.
    """

    pid: int
    clock: int | None = None
    arena_bytes: int = 0


@dataclass(frozen=True, slots=True)
class RowsGivenBack:
    """What a worker sends instead of the last rows of a batch whose mapped rows take too much memory."""


@dataclass(frozen=True, slots=True)
class WorkerProblem:
    """What a worker sends when it cannot go on.

    Attributes:
        message: what is wrong, for people.
        bad_job: whether the job or what it names is at fault; else run-batch or a library is.
        may_pass: whether it is storage or network that fails, in a way that may pass.
        trace: the traceback, for --verbose.
    """

    message: str
    bad_job: bool
    trace: str
    may_pass: bool = False


def main(descriptor: int, *others: int) -> None:
    """Map batches from the pipe `descriptor` until it is closed, then end the process.

    Args:
        descriptor: this worker's end of its pipe.
        others: the ends of further workers' pipes. The process forks a copy for each of them once it has loaded the
            model's configs and tokenizer, which takes seconds of a core and half a gigabyte: so it is done once.
    """
    # The main process decides what a signal means; workers end when it closes their pipe or dies.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    # What vLLM logs of the model, the main process logs too; without any handler Python would print it here again.
    logging.getLogger().addHandler(logging.NullHandler())
    # Libraries print to stdout, which is reserved for the summary line.
    os.dup2(2, 1)
    # The kernel reaps copies that end: this process does not wait for them.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    os.nice(_NICENESS)
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        serve(Connection(descriptor), others)
    # Skips the interpreter's shutdown, which takes long with torch and vLLM loaded and has nothing to save here.
    sys.stderr.flush()
    os._exit(0)


def serve(connection: Connection, others: Sequence[int]) -> None:
    """Receive a spec, load it, and map batches until something goes wrong.

    Raises:
        EOFError, ConnectionError: the pipe has been closed at the other end.
    """
    # Importing torch and vLLM makes many objects and hardly any garbage: the collector would search them often.
    gc.disable()
    parent = os.pidfd_open(os.getppid())
    # Imports torch, which this module must not: the main process imports it before it starts the workers.
    from run_batch.jobs.mapping import shared_memory

    spec: WorkerSpec = pickle.loads(connection.recv_bytes())
    try:
        mapper = spec.load()
    except Exception as error:
        shared_memory.send(connection, _problem(error))
        return
    # Takes what is loaded out of later collections: it stays as long as the process.
    gc.freeze()
    gc.enable()
    connection = _fork(connection, others)
    threading.Thread(target=_end_with, args=(parent,), name="parent", daemon=True).start()
    arena = _open_arena(spec.memory)
    shared_memory.send(connection, WorkerReady(os.getpid(), clock.share(), arena.nbytes if arena else 0))
    if arena is not None:
        send_handle(connection, arena.descriptor, None)
    while True:
        _wait(connection, arena)
        batch: RowBatch = shared_memory.receive(connection)[0]
        clock.begin(batch.start, batch.records.num_rows, MAPPING_ROW)
        try:
            _map(connection, mapper, batch, spec.memory.batch_bytes, arena)
            clock.rest()
        except Exception as error:
            shared_memory.send(connection, _problem(error, batch))
            return


def _open_arena(memory: WorkerMemory) -> "RowArena | None":
    """The arena that mappers write into; None where processes may not have as much address space as they like."""
    from run_batch.jobs.mapping.row_arena import RowArena

    if resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY:
        return None
    try:
        arena = RowArena(memory.arena_bytes, memory.kept_bytes)
    except (OSError, ValueError):
        return None
    map_into(arena.allocate)
    return arena


def _wait(connection: Connection, arena: "RowArena | None") -> None:
    """Wait for the next batch, and free the memory of rows that are dropped in the meantime."""
    looks = 0
    while arena is not None and arena.may_free and not connection.poll(_LOOK_SECONDS):
        looks += 1
        arena.free(keep=looks < _LOOKS)


def _map(
    connection: Connection, mapper: "RowMapper", batch: RowBatch, batch_bytes: int, arena: "RowArena | None"
) -> None:
    """Map a batch and send its rows in parts; give back what is left once they take `batch_bytes` bytes."""
    from run_batch.jobs.mapping import shared_memory

    rows_sent, bytes_sent = 0, 0
    part_bytes = min(PART_BYTES, batch_bytes)
    for rows, nbytes in shared_memory.send_in_parts(connection, mapper.map_groups(batch), part_bytes, arena):
        rows_sent, bytes_sent = rows_sent + rows, bytes_sent + nbytes
        if bytes_sent >= batch_bytes and rows_sent < batch.records.num_rows:
            shared_memory.send(connection, RowsGivenBack())
            return


def _end_with(pidfd: int) -> None:
    """End this process with another one: a worker that hangs does not see that its pipe has been closed."""
    select.select([pidfd], [], [])
    os._exit(1)


def _problem(error: Exception, batch: RowBatch | None = None) -> WorkerProblem:
    """What a worker sends of an exception, while it loads or while it maps a batch."""
    from run_batch.model.rendering.job_faults import describe, machine_fault

    trace = traceback.format_exc()
    fault = machine_fault(error)
    passing = may_pass(fault or error)
    if isinstance(error, JobError | PluginError | DeclarationError | JobFault | SettingsError):
        return WorkerProblem(str(error), True, trace, passing)
    if fault is not None:
        return WorkerProblem(describe(fault), True, trace, passing)
    rows = f"while mapping rows {batch.start} to {batch.stop - 1}" if batch is not None else "while it loaded"
    return WorkerProblem(f"{rows}: {trace if is_own_bug(error) else Report.of(error).text}", False, trace)


def _fork(connection: Connection, others: Sequence[int]) -> Connection:
    """Fork a copy of this process for each of the other pipes; the pipe that the process it returns in shall serve.

    Each process keeps only its own pipe open: the pool learns of a worker's death by end of file, which it gets once
    no process has the worker's end open any more.
    """
    for position, descriptor in enumerate(others):
        if os.fork() == 0:
            connection.close()
            for later in others[position + 1 :]:
                os.close(later)
            return Connection(descriptor)
        os.close(descriptor)
    return connection
