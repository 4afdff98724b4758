"""What Slurm tells a process by its environment: which share of the job is its own.

A share is found inside an array task, inside a step (`srun`) of several tasks, and inside both. Numbers that do not fit
together are refused, with what to do: a share that is guessed wrong would leave rows out.
"""

from collections.abc import Mapping

from run_batch.jobs.job.errors import JobError
from run_batch.jobs.job.shares import Share

# How many tasks the whole array has, set by the script of `run-batch submit`: resubmitted in part (--array=3,7), each
# task still knows its share.
ARRAY_COUNT = "RUN_BATCH_ARRAY_COUNT"

_BY_HAND = "or say --task-index and --task-count"


def find_share(environ: Mapping[str, str]) -> Share | None:
    """The share of the process with this environment; None outside of arrays and of steps with several tasks.

    Raises:
        JobError: the array is one whose tasks cannot be counted from the environment, or its numbers make no sense.
    """
    array, step = _array_share(environ), _step_share(environ)
    if array is None or step is None:
        return array or step
    return Share(array.index * step.count + step.index, array.count * step.count)


def _array_share(environ: Mapping[str, str]) -> Share | None:
    if "SLURM_ARRAY_TASK_ID" not in environ:
        return None
    task = read_number(environ, "SLURM_ARRAY_TASK_ID")
    if ARRAY_COUNT in environ:
        count = read_number(environ, ARRAY_COUNT)
        if not 0 <= task < count:
            raise JobError(
                f"array task {task}: {ARRAY_COUNT} = {count}, so tasks are numbered from 0 to {count - 1}; set it to "
                f"the number of tasks of the whole array, {_BY_HAND}"
            )
        return Share(task, count)
    names = ("MIN", "MAX", "STEP", "COUNT")
    first, last, step, count = (read_number(environ, f"SLURM_ARRAY_TASK_{name}") for name in names)
    # Numbered from 5, it can hardly be all: the lost tasks of a larger array, submitted again.
    if first > 1 or step < 1 or (last - first) // step + 1 != count:
        raise JobError(
            f"an array of {count} tasks from {first} to {last} is not a whole one (0-{count - 1}, say), so this task's "
            f"share cannot be known: submit by run-batch submit, export {ARRAY_COUNT}=N, the number of tasks of the "
            f"whole array (numbered from 0), {_BY_HAND}"
        )
    return Share((task - first) // step, count)


def _step_share(environ: Mapping[str, str]) -> Share | None:
    # SLURM_PROCID and SLURM_NTASKS are no sign of a step: the batch script has them too, and is one process.
    if "SLURM_STEP_NUM_TASKS" not in environ:
        return None
    count = read_number(environ, "SLURM_STEP_NUM_TASKS")
    return Share(read_number(environ, "SLURM_PROCID"), count) if count > 1 else None


def tasks_on_node(environ: Mapping[str, str]) -> int:
    """How many tasks of this process's step are on this node; 1 outside of steps.

    Raises:
        JobError: Slurm's numbers make no sense.
    """
    if _step_share(environ) is None:
        return 1
    counts: list[int] = []
    for group in environ.get("SLURM_STEP_TASKS_PER_NODE", "").split(","):
        count, _, repeated = group.partition("(x")
        counts += [int(count)] * int(repeated.rstrip(")") or 1) if count.isdigit() else []
    node = read_number(environ, "SLURM_NODEID")
    if not 0 <= node < len(counts):
        raise JobError(
            f"SLURM_STEP_TASKS_PER_NODE = {environ.get('SLURM_STEP_TASKS_PER_NODE')!r} tells nothing of node {node}"
        )
    return counts[node]


def read_number(environ: Mapping[str, str], name: str) -> int:
    try:
        return int(environ[name])
    except (KeyError, ValueError):
        found = environ.get(name)
        raise JobError(f"{name} is {found!r}, not a number: is this inside Slurm? If not, unset it") from None
