"""What Slurm tells a process by its environment: which share of the job is its own, and which GPUs of the node.

A share is found inside an array task, inside a step (`srun`) of several tasks, and inside both. Numbers that do not fit
together are refused, with what to do: a share that is guessed wrong would leave rows out.
"""

from collections.abc import Mapping, MutableMapping
from pathlib import Path

from run_batch.jobs.job.config import JobConfig
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
    task = _number(environ, "SLURM_ARRAY_TASK_ID")
    if ARRAY_COUNT in environ:
        count = _number(environ, ARRAY_COUNT)
        if not 0 <= task < count:
            raise JobError(
                f"array task {task}: {ARRAY_COUNT} = {count}, so tasks are numbered from 0 to {count - 1}; set it to "
                f"the number of tasks of the whole array, {_BY_HAND}"
            )
        return Share(task, count)
    names = ("MIN", "MAX", "STEP", "COUNT")
    first, last, step, count = (_number(environ, f"SLURM_ARRAY_TASK_{name}") for name in names)
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
    count = _number(environ, "SLURM_STEP_NUM_TASKS")
    return Share(_number(environ, "SLURM_PROCID"), count) if count > 1 else None


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
    node = _number(environ, "SLURM_NODEID")
    if not 0 <= node < len(counts):
        raise JobError(
            f"SLURM_STEP_TASKS_PER_NODE = {environ.get('SLURM_STEP_TASKS_PER_NODE')!r} tells nothing of node {node}"
        )
    return counts[node]


def gpus_per_engine(config: JobConfig) -> int:
    """GPUs of one process, by the sizes of tensor and pipeline parallelism."""
    sizes = [config.engine.get(f"{kind}_parallel_size", 1) for kind in ("tensor", "pipeline")]
    # Of another type, they are refused with the other engine settings.
    tensor, pipeline = (size if isinstance(size, int) and size > 0 else 1 for size in sizes)
    return tensor * pipeline


def take_own_gpus(environ: MutableMapping[str, str], needed: int) -> None:
    """Let this process see its own GPUs alone. To be called before anything looks for them.

    Raises:
        JobError: see own_devices.
    """
    devices = own_devices(environ, needed, _installed_gpus())
    if devices is not None:
        environ["CUDA_VISIBLE_DEVICES"] = devices


def own_devices(environ: Mapping[str, str], needed: int, installed: int) -> str | None:
    """What CUDA_VISIBLE_DEVICES should be, for a process that sees the GPUs of other tasks too; None: leave it.

    Args:
        needed: GPUs of one engine.
        installed: GPUs of this machine, for clusters whose Slurm does not manage them.

    Raises:
        JobError: there are too few, or a number of them that cannot be shared out.
    """
    visible = environ.get("CUDA_VISIBLE_DEVICES")
    devices = [str(device) for device in range(installed)] if visible is None else visible.split(",")
    devices = [device for device in devices if device not in ("", "NoDevFiles")]
    if not devices or ("SLURM_JOB_ID" not in environ):
        return None
    tasks = tasks_on_node(environ)
    wanted = f"engine.tensor_parallel_size x engine.pipeline_parallel_size = {needed}"
    if len(devices) < needed:
        raise JobError(f"{wanted}, and this task sees {len(devices)} GPUs: ask Slurm for --gpus-per-task={needed}")
    if tasks == 1:
        return None
    if len(devices) >= tasks * needed:
        begin = _number(environ, "SLURM_LOCALID") * needed
        return ",".join(devices[begin : begin + needed])
    on_node = environ.get("SLURM_GPUS_ON_NODE", "")
    # As many as it needs: Slurm has given each task its own, unless all of them see the same few.
    if len(devices) == needed and not (on_node.isdigit() and int(on_node) < tasks * needed):
        return None
    raise JobError(
        f"{wanted}, and of {tasks} tasks on this node each sees {len(devices)} GPUs: ask Slurm for "
        f"--gpus-per-task={needed}, or start fewer tasks a node"
    )


def _installed_gpus() -> int:
    """NVIDIA GPUs of this machine, without loading any library."""
    return sum(path.name.removeprefix("nvidia").isdigit() for path in Path("/dev").glob("nvidia[0-9]*"))


def _number(environ: Mapping[str, str], name: str) -> int:
    try:
        return int(environ[name])
    except (KeyError, ValueError):
        found = environ.get(name)
        raise JobError(f"{name} is {found!r}, not a number: is this inside Slurm? If not, unset it") from None
