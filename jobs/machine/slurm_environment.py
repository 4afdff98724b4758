"""Slurm's environment variables: which share of the job this process has, and how many tasks run on its node.

A process has a share in an array task, in a step (`srun`) of several tasks, and in a step inside an array task. Numbers
that contradict each other are refused: with a wrong share, rows would be left out.
"""

from collections.abc import Mapping

from run_batch.jobs.job.errors import JobError
from run_batch.jobs.job.shares import Share

# The number of tasks of the whole array, set by the script of `run-batch submit`: a task that is resubmitted alone
# (--array=3,7) still knows its share.
ARRAY_COUNT = "RUN_BATCH_ARRAY_COUNT"

_BY_HAND = "or say --task-index and --task-count"


def find_share(environ: Mapping[str, str]) -> Share | None:
    """The share of the process with this environment; None outside arrays and steps of several tasks.

    Raises:
        JobError: the number of tasks of the array cannot be told from the environment, or the variables contradict
            each other.
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
    # An array that begins at 5, or has gaps, is probably a part of a larger array, submitted again.
    if first > 1 or step < 1 or (last - first) // step + 1 != count:
        raise JobError(
            f"an array of {count} tasks from {first} to {last} is not a whole one (0-{count - 1}, say), so this task's "
            f"share cannot be known: submit by run-batch submit, export {ARRAY_COUNT}=N, the number of tasks of the "
            f"whole array (numbered from 0), {_BY_HAND}"
        )
    return Share((task - first) // step, count)


def _step_share(environ: Mapping[str, str]) -> Share | None:
    # SLURM_PROCID and SLURM_NTASKS do not tell a step: they are set in the batch script, too, which is one process.
    if "SLURM_STEP_NUM_TASKS" not in environ:
        return None
    count = read_number(environ, "SLURM_STEP_NUM_TASKS")
    return Share(read_number(environ, "SLURM_PROCID"), count) if count > 1 else None


def tasks_on_node(environ: Mapping[str, str]) -> int:
    """How many tasks of this process's step run on this node; 1 outside steps.

    Raises:
        JobError: the variables of the step contradict each other.
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
    """The value of a variable that Slurm sets to a number.

    Raises:
        JobError: it is not set, or is not a number.
    """
    try:
        return int(environ[name])
    except (KeyError, ValueError):
        found = environ.get(name)
        raise JobError(f"{name} is {found!r}, not a number: is this inside Slurm? If not, unset it") from None
