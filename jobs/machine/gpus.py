"""How many GPUs one engine needs, and which GPUs of the node this process may use."""

from collections.abc import Mapping, MutableMapping
from pathlib import Path

from run_batch.jobs.job.config import JobConfig
from run_batch.jobs.job.errors import JobError
from run_batch.jobs.machine.slurm_environment import read_number, tasks_on_node


def gpus_per_engine(config: JobConfig) -> int:
    """The GPUs of one engine: tensor parallel size x pipeline parallel size."""
    sizes = [config.engine.get(f"{kind}_parallel_size", 1) for kind in ("tensor", "pipeline")]
    # A size of another type is refused later, with the other engine settings.
    tensor, pipeline = (size if isinstance(size, int) and size > 0 else 1 for size in sizes)
    return tensor * pipeline


def take_own_gpus(environ: MutableMapping[str, str], needed: int) -> None:
    """Set CUDA_VISIBLE_DEVICES to this process's own GPUs. Call it before a library initializes CUDA.

    Args:
        environ: the environment of this process; changed in place.
        needed: GPUs of one engine.

    Raises:
        JobError: see own_devices.
    """
    devices = own_devices(environ, needed, _installed_gpus())
    if devices is not None:
        environ["CUDA_VISIBLE_DEVICES"] = devices


def own_devices(environ: Mapping[str, str], needed: int, installed: int) -> str | None:
    """The value of CUDA_VISIBLE_DEVICES for a task that also sees the GPUs of other tasks; None: leave it unchanged.

    Args:
        environ: the environment of the task.
        needed: GPUs of one engine.
        installed: GPUs of this machine, for clusters whose Slurm does not manage GPUs.

    Raises:
        JobError: there are too few GPUs, or they cannot be divided among the tasks of this node.
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
        begin = read_number(environ, "SLURM_LOCALID") * needed
        return ",".join(devices[begin : begin + needed])
    on_node = environ.get("SLURM_GPUS_ON_NODE", "")
    # Exactly as many as needed: Slurm has bound each task to its own GPUs, unless all tasks see the same few.
    if len(devices) == needed and not (on_node.isdigit() and int(on_node) < tasks * needed):
        return None
    raise JobError(
        f"{wanted}, and of {tasks} tasks on this node each sees {len(devices)} GPUs: ask Slurm for "
        f"--gpus-per-task={needed}, or start fewer tasks a node"
    )


def _installed_gpus() -> int:
    """The number of NVIDIA GPUs in /dev: asking CUDA would initialize it."""
    return sum(path.name.removeprefix("nvidia").isdigit() for path in Path("/dev").glob("nvidia[0-9]*"))
