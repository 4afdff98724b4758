"""Runs the shares of a job as tasks of a Ray cluster, and waits for them.

Ray places a task where its GPUs and cores are free, and starts it again where its node has died; the share goes on with
what is committed and journalled. Ray is imported when it is needed: nothing else of run-batch uses it.
"""

import importlib
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from run_batch.jobs.job.errors import (
    EXIT_BAD_JOB,
    EXIT_COMPLETE,
    EXIT_RUN_FAILED,
    EXIT_TOO_MANY_FAILURES,
    Interrupted,
    JobError,
    RunError,
)
from run_batch.jobs.job.prepare import PreparedJob
from run_batch.jobs.machine.gpus import gpus_per_engine
from run_batch.jobs.machine.own_command import set_arguments, this_program
from run_batch.jobs.machine.stop_signals import StopRequest
from run_batch.jobs.ray.share_task import ShareInterrupted, run_share
from run_batch.jobs.watch.status import read_status

# Starts of a share after the first, for whatever reason, before the run fails.
_RETRIES = 5
# Without --cpus, a share asks for its part of the cluster's cores, up to this many.
_MOST_CORES = 16
_SECONDS_BETWEEN_LINES = 10.0
# Of several shares' exit codes, the one that the job ends with is the first of these.
_WORST_FIRST = (EXIT_BAD_JOB, EXIT_RUN_FAILED, EXIT_TOO_MANY_FAILURES, EXIT_COMPLETE)


@dataclass(frozen=True, slots=True)
class RayOptions:
    """What `run-batch ray` was asked for.

    Attributes:
        tasks: shares that the job is cut into; each is one task.
        address: of the cluster; None for the one that RAY_ADDRESS names or that runs on this machine, else a new one.
        gpus, cpus: of each task; None for what the job's engine needs, and a part of the cluster's cores.
    """

    tasks: int
    address: str | None = None
    gpus: float | None = None
    cpus: float | None = None


def run_on_ray(
    job: PreparedJob, options: RayOptions, config_path: Path, overrides: Sequence[str], summary: TextIO
) -> int:
    """Run all shares of a job; prints one line on it to `summary`.

    Args:
        config_path: the job.toml, which all nodes see under the same path, as the folders that it names.
        overrides: the `--set` options.

    Returns:
        The exit code of the job: the worst of its shares'.

    Raises:
        JobError: Ray is missing, or the cluster has not what a task asks for.
        RunError: a share failed again and again, or Ray did.
        Interrupted: a signal came; the shares have saved what they had finished.
    """
    ray = _import_ray()
    try:
        ray.init(address=options.address)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise RunError(f"the Ray cluster cannot be reached: {_reason(error)}") from error
    stop = StopRequest()
    # Ray sets signal handlers of its own, which end the process at once.
    with stop.listening():
        stop.loading = False
        tasks = _start(ray, job, options, config_path, overrides)
        code = _wait(ray, job, tasks, stop)
        ray.shutdown()
    print(read_status(job.config).as_text().splitlines()[0], file=summary, flush=True)
    return code


def _import_ray() -> Any:
    try:
        return importlib.import_module("ray")
    except ModuleNotFoundError:
        raise JobError(
            "run-batch ray needs Ray beside run-batch, on this machine and on all nodes: pip install ray"
        ) from None


def _start(
    ray: Any, job: PreparedJob, options: RayOptions, config_path: Path, overrides: Sequence[str]
) -> Sequence[Any]:
    """Hand one task for each share to Ray."""
    resources: Mapping[str, float] = ray.cluster_resources()
    gpus = _gpus(job, options, resources)
    cpus = options.cpus or max(1, min(int(resources.get("CPU", 1)) // options.tasks, _MOST_CORES))
    words = [*this_program(), "--config", str(config_path.absolute()), *set_arguments(overrides), "--quiet"]
    if job.config.preprocess.workers is None:
        # A task sees all cores of its node, whatever it asked Ray for.
        words += ["--set", f"preprocess.workers={max(1, int(cpus))}"]
    task = ray.remote(num_gpus=gpus, num_cpus=cpus, max_retries=_RETRIES, retry_exceptions=[ShareInterrupted])(
        run_share
    )
    print(f"{options.tasks} shares as Ray tasks of {gpus:g} GPUs and {cpus:g} cores each", file=sys.stderr, flush=True)
    cores = cpus if job.config.preprocess.memory is None else None
    return [task.remote(words, index, options.tasks, cores) for index in range(options.tasks)]


def _gpus(job: PreparedJob, options: RayOptions, resources: Mapping[str, float]) -> float:
    """GPUs of a task: those of its engine; none on a cluster that has none, where vLLM's CPU build runs."""
    if options.gpus is not None:
        return options.gpus
    return gpus_per_engine(job.config) if resources.get("GPU", 0) > 0 else 0


def _wait(ray: Any, job: PreparedJob, tasks: Sequence[Any], stop: StopRequest) -> int:
    """Wait until all tasks have ended, and tell now and then how far the job is."""
    left, codes, failures = list(tasks), set[int](), list[Exception]()
    told = time.monotonic()
    while left:
        if stop.requested:
            # Their shares save what they have finished.
            for task in left:
                ray.cancel(task)
            ray.wait(left, num_returns=len(left))
            raise Interrupted
        done, left = ray.wait(left, timeout=1.0)
        for task in done:
            try:
                codes.add(ray.get(task))
            except ray.exceptions.RayError as error:
                failures.append(error)
        if time.monotonic() - told > _SECONDS_BETWEEN_LINES:
            told = time.monotonic()
            print(read_status(job.config).as_text().splitlines()[0], file=sys.stderr, flush=True)
    if failures:
        raise RunError(f"{len(failures)} of {len(tasks)} shares failed: {_reason(failures[0])}") from failures[0]
    return next(code for code in _WORST_FIRST if code in codes)


def _reason(error: Exception) -> str:
    """What a failed task says, on one line: the cause, where it is of the task, without Ray's traceback."""
    cause = getattr(error, "cause", None) or error
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    return lines[-1] if lines else type(cause).__name__
