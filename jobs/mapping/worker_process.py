"""A worker process, as the engine's process sees it."""

import collections
import contextlib
import os
import signal
import subprocess
from dataclasses import dataclass, field
from multiprocessing.connection import Connection

from run_batch.io.inputs.source import RowBatch

WORKER_ENVIRONMENT = {
    # One core per worker: the pool is what runs in parallel.
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    # glibc would give the memory of decoded images back after each batch, and the kernel clear it again for the next:
    # a tenth of the time that a large image takes. It keeps up to 128 MiB; what is larger than 32 MiB comes and goes.
    "MALLOC_TRIM_THRESHOLD_": str(128 << 20),
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
}


@dataclass(slots=True)
class _Worker:
    """Attributes:
    process: what was started; None for a copy of another worker.
    handle: a descriptor of the process of a copy, once it has said which it is.
    busy_since: time.monotonic() up to which the time that it had tasks has been counted; None while it has none.
    """

    process: subprocess.Popen[bytes] | None
    connection: Connection
    tasks: collections.deque[RowBatch] = field(default_factory=collections.deque)
    handle: int | None = None
    loaded: bool = False
    busy_since: float | None = None

    def ready(self, pid: int) -> None:
        self.loaded = True
        if self.process is None:
            # None where it has died already: its end of the pipe tells.
            with contextlib.suppress(ProcessLookupError):
                self.handle = os.pidfd_open(pid)

    def end(self) -> None:
        """Kill the process, if it still runs."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
        if self.handle is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.handle, signal.SIGKILL)
            os.close(self.handle)
            self.handle = None
        self.connection.close()
