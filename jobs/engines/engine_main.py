"""The process of one engine: a run of one share, which reports its end to the parent that has started it.

Started by run_batch.jobs.engines.engine_process, which passes the descriptor of its end of a pipe.
"""

import contextlib
import functools
import json
import os
import pickle
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from run_batch.jobs.command import run_process
from run_batch.jobs.job.config import JobConfig
from run_batch.jobs.job.prepare import prepare
from run_batch.jobs.job.shares import Share
from run_batch.jobs.machine.processes import end_with
from run_batch.jobs.runner.place_failures import PlaceError
from run_batch.jobs.runner.run_job import EngineFactory, run_job


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """What the process of an engine needs to know; sent to it pickled.

    Attributes:
        config: the job, with this engine's part of the workers.
        share: what it does.
        retry_failed, verbose: as of the command.
        parent: the process that ends it by its own end.
    """

    config: JobConfig
    share: Share
    retry_failed: bool
    verbose: bool
    parent: int


@dataclass(frozen=True, slots=True)
class EngineProblem:
    """What the process of an engine sends before it ends by an error.

    Attributes:
        message: what is wrong, for people.
        of_place: it is a PlaceError: the same run would fail again.
    """

    message: str
    of_place: bool


def main(descriptor: int) -> None:
    """Do what the pipe says, and end the process."""
    os.set_inheritable(descriptor, False)
    serve(Connection(descriptor))


def serve(connection: Connection, start_engine: EngineFactory | None = None) -> None:
    """Receive a spec, run its share, and end the process with the exit code of the run.

    Args:
        start_engine: see run_job.
    """
    spec: EngineSpec = pickle.loads(connection.recv_bytes())
    end_with(spec.parent)

    def tell(error: Exception) -> None:
        problem = {"message": str(error), "of_place": isinstance(error, PlaceError)}
        with contextlib.suppress(OSError):  # the parent is gone, and this process with it
            connection.send_bytes(json.dumps(problem).encode())

    # The parent tells of an interruption.
    run_process(functools.partial(_run, spec, start_engine), spec.verbose, tell, interrupted_line="")


def read_problem(message: bytes) -> EngineProblem:
    """What the process of an engine has sent."""
    return EngineProblem(**json.loads(message))


def _run(spec: EngineSpec, start_engine: EngineFactory | None, summary: Any) -> int:
    job = prepare(spec.config, spec.share)
    return run_job(job, True, summary, start_engine, spec.retry_failed, is_part=True)
