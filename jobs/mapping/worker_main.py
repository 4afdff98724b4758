"""One worker process: takes batches of input rows, gives them back mapped, until its pipe is closed.

Started by run_batch.jobs.mapping.worker_pool, which passes the descriptor of its end of a pipe.
"""

import contextlib
import gc
import logging
import os
import pickle
import signal
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import pyarrow as pa

from run_batch.io.inputs.source import RowBatch
from run_batch.jobs.job.config import JobConfig
from run_batch.jobs.job.errors import JobError

_NICENESS = 5


@dataclass(frozen=True, slots=True)
class WorkerSpec:
    """All that a worker needs to know of the job.

    Attributes:
        schema: of the whole input.
        media_root: where image paths are inside of; None when paths are not allowed.
    """

    config: JobConfig
    schema: pa.Schema
    media_root: Path | None


@dataclass(frozen=True, slots=True)
class WorkerReady:
    """What a worker says once it can take tasks."""

    pid: int


@dataclass(frozen=True, slots=True)
class WorkerProblem:
    """Why a worker cannot go on.

    Attributes:
        message: for people.
        bad_job: whether the job's configuration is at fault (else a mapper, or run-batch itself).
    """

    message: str
    bad_job: bool


def main(descriptor: int, *others: int) -> None:
    """Serve tasks from the pipe `descriptor` until it closes; ends the process.

    Args:
        others: pipes that copies of this process serve, forked once it has loaded the model's configs and tokenizer:
            loading costs seconds of a core and half a gigabyte, and needs to be done once.
    """
    # The main process decides what a signal means; workers end when it closes their pipe or dies.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    # The main process tells of the model; without any handler Python would print what vLLM logs here.
    logging.getLogger().addHandler(logging.NullHandler())
    # Libraries print to stdout; that is kept for the one summary line.
    os.dup2(2, 1)
    # Copies that end are nobody's concern here.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    # What generates comes first: workers take what the engine leaves of the cores.
    os.nice(_NICENESS)
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        _serve(Connection(descriptor), others)
    # Skips the interpreter's teardown of torch and vLLM, which takes longer than it is worth.
    sys.stderr.flush()
    os._exit(0)


def _fork(connection: Connection, others: Sequence[int]) -> Connection:
    """Make a copy of this process for each of the other pipes; each of them, and this one, gets its own."""
    for position, descriptor in enumerate(others):
        if os.fork() == 0:
            connection.close()
            for later in others[position + 1 :]:
                os.close(later)
            return Connection(descriptor)
        os.close(descriptor)
    return connection


def _serve(connection: Connection, others: Sequence[int]) -> None:
    spec: WorkerSpec = pickle.loads(connection.recv_bytes())
    # While torch and vLLM are imported almost nothing becomes garbage, and the collector walks through all of it often.
    gc.disable()
    from run_batch.jobs.mapping import shared_memory as transport
    from run_batch.model.declaration import DeclarationError
    from run_batch.model.images.resize import compile_resize
    from run_batch.model.plugin import PluginError, register

    try:
        import cv2
        import torch

        # Workers are what runs in parallel: threads within them would only take turns.
        cv2.setNumThreads(1)
        torch.set_num_threads(1)
        pa.set_cpu_count(1)
        pa.set_io_thread_count(1)
        register()
        from run_batch.jobs.mapping.row_mapper import RowMapper

        mapper = RowMapper(spec.config, spec.schema, spec.media_root)
        if spec.config.input.image_column:
            compile_resize()
    except (JobError, PluginError, DeclarationError) as error:
        transport.send(connection, WorkerProblem(str(error), bad_job=True))
        return
    except Exception:
        transport.send(connection, WorkerProblem(traceback.format_exc(), bad_job=False))
        return
    # What has been loaded stays: the collector need not look at it ever again.
    gc.freeze()
    gc.enable()
    connection = _fork(connection, others)
    transport.send(connection, WorkerReady(os.getpid()))
    while True:
        batch: RowBatch = transport.receive(connection)[0]
        try:
            transport.send(connection, mapper.map(batch))
        except DeclarationError as error:
            transport.send(connection, WorkerProblem(str(error), bad_job=True))
            return
        except Exception:
            where = f"while mapping rows {batch.start} to {batch.stop - 1}:\n{traceback.format_exc()}"
            transport.send(connection, WorkerProblem(where, bad_job=False))
            return
