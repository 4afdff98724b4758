"""What a Ray task does: one share of a job, in a process of its own that does not outlive the task."""

import contextlib
import functools
import os
import subprocess
from collections.abc import Sequence

from run_batch.jobs.job.errors import EXIT_INTERRUPTED, EXIT_MAY_PASS, EXIT_RUN_FAILED
from run_batch.jobs.machine.cores import usable_cores
from run_batch.jobs.machine.memory import default_row_memory
from run_batch.jobs.machine.processes import end_with

# Exit codes after which the same command goes on with the share.
RESUMABLE = (EXIT_RUN_FAILED, EXIT_MAY_PASS, EXIT_INTERRUPTED)
# A share that is told to stop saves what it has finished; one that does not end by then is killed.
_STOP_SECONDS = 60.0


class ShareInterrupted(Exception):
    """The share did not end; Ray starts its task again, on another node if need be."""


def run_share(command: Sequence[str], index: int, count: int, cores: float | None = None) -> int:
    """Run a share of a job to its end.

    Args:
        command: run-batch with its options, as this node knows it.
        cores: of the share; as many shares as there are such parts divide the memory of the node. None where the job
            says how much rows may take.

    Returns:
        Its exit code.

    Raises:
        ShareInterrupted: it failed in a way that may pass, or was killed.
    """
    words = [*command, "--task-index", str(index), "--task-count", str(count)]
    if cores is not None:
        memory = default_row_memory(processes=max(1, int(usable_cores() // cores)))
        words += ["--set", f"preprocess.memory={memory}"]
    # Ray kills the workers of a node, not their children. It runs a task in the main thread of its worker.
    process = subprocess.Popen(words, preexec_fn=functools.partial(end_with, os.getpid()))
    try:
        code = process.wait()
    finally:  # the task is cancelled
        if process.poll() is None:
            _stop(process)
    if code in RESUMABLE or code < 0:
        raise ShareInterrupted(f"share {index} of {count} ended with exit code {code}")
    return code


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_STOP_SECONDS)
    process.kill()
