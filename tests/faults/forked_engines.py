"""The processes of several engines as forks of their parent, and engines that a broken GPU ends."""

import gc
import os
import threading
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from typing import Any

from fork_server import close_all_but, renew_streams

from run_batch.jobs.engines import engine_main
from run_batch.jobs.engines.engine_process import StartProcess
from run_batch.jobs.job.config import JobConfig
from run_batch.jobs.job.errors import JobError, RunError


def break_down(how: str) -> None:
    """Let the engine that loads fail, or its process die a moment later."""
    if how == "refuse":
        raise JobError("engine.dtype is wrong")
    if how == "load":
        raise RunError("the engine does not start: CUDA error: uncorrectable ECC error")
    threading.Timer(0.1, os._exit, (9,)).start()


def fork_run(start_engine: Callable[[JobConfig], Any]) -> StartProcess:
    """What starts the process of one of several engines as `start_process` does, as a fork of this process."""

    def start(environ: Mapping[str, str], pipe: int, stderr: int) -> int:
        if pid := os.fork():
            return pid
        os.setsid()
        os.dup2(os.open(os.devnull, os.O_RDWR), 1)
        os.dup2(stderr, 2)
        # As in stand_ins.Forked.
        gc.freeze()
        close_all_but(pipe)
        renew_streams()
        os.environ.update(environ)
        try:
            engine_main.serve(Connection(pipe), start_engine)
        finally:
            os._exit(1)

    return start
