"""How much memory is left on this machine for a process, by the kernel, all cgroups above it, and Slurm."""

import logging
import os
from collections.abc import Mapping
from pathlib import Path

from run_batch.jobs.job.config_values import LEAST_MEMORY
from run_batch.jobs.job.errors import JobError
from run_batch.jobs.machine.cgroups import CGROUPS, limit_folders, own_cgroups
from run_batch.jobs.machine.slurm_environment import tasks_on_node

_log = logging.getLogger(__name__)
# Of the memory that is left: the rest is for the engine, its weights on a CPU, and the caches of the file system.
_SHARE = 4


def default_row_memory(processes: int = 1) -> int:
    """Bytes that the rows of one process may take where the job does not say.

    Args:
        processes: of this run on this machine, which divide the memory.
    """
    return memory_left() // _SHARE // max(1, processes)


def check_row_memory(nbytes: int | None, processes: int = 1) -> None:
    """Check `preprocess.memory` against this machine; warn where it has that much, but not now.

    Args:
        nbytes: None where the job does not say.
        processes: of this run on this machine, which divide it.

    Raises:
        JobError: the machine never has that much, or a process gets less than a row may take.
    """
    if nbytes is None:
        return
    there = memory_there()
    if nbytes > there:
        raise JobError(
            f"preprocess.memory: {as_key(nbytes)} is more than the {as_key(there)} that this process may have at all, "
            "by the machine, its cgroup and Slurm; leave the key out for a quarter of what is left there"
        )
    if nbytes // processes < LEAST_MEMORY:
        raise JobError(
            f"preprocess.memory: {as_key(nbytes)} is for {processes} engines of this machine together, each of which "
            f"needs {as_key(LEAST_MEMORY)} for the rows of its own; set {as_key(LEAST_MEMORY * processes)} or more"
        )
    if nbytes > (left := memory_left()):
        _log.warning(
            "preprocess.memory: %s is more than the %s that is left here now; rows that take it all may have the run "
            "killed",
            as_key(nbytes),
            as_key(left),
        )


def memory_there() -> int:
    """Bytes that this process may allocate at all, whatever is in use: the machine's, or what a cgroup or Slurm allows.

    Tasks of one Slurm step that share a node divide it.
    """
    folders = limit_folders(own_cgroups(), CGROUPS, "memory")
    limits = [_limit_v2(folder) if version == 2 else _limit_v1(folder) for version, folder in folders]
    there = [*(limit for limit in limits if limit is not None), *_slurm_memory(os.environ)]
    machine = _numbers(Path("/proc/meminfo")).get("MemTotal:")
    return min([*there, *([machine] if machine is not None else [])]) // tasks_on_node(os.environ)


def as_key(nbytes: int) -> str:
    """Bytes as `preprocess.memory` takes them, rounded up."""
    for unit, size in (("GB", 10**9), ("MB", 10**6)):
        if nbytes >= size:
            tenths = -(-nbytes * 10 // size)
            return f"{tenths / 10:g} {unit}" if tenths < 100 else f"{-(-nbytes // size)} {unit}"
    return f"{nbytes} B"


def memory_left() -> int:
    """Bytes that this process can still allocate before the machine or a cgroup is full; page cache counts as free.

    Tasks of one Slurm step that share a node divide what is left there.
    """
    left = [*cgroup_memory_left(own_cgroups(), CGROUPS), *_slurm_memory(os.environ)]
    machine = _machine_memory_left(Path("/proc/meminfo"))
    return min([*left, *([machine] if machine is not None else [])]) // tasks_on_node(os.environ)


def _machine_memory_left(meminfo: Path) -> int | None:
    return _numbers(meminfo).get("MemAvailable:")


def cgroup_memory_left(cgroups: str, mount: Path) -> list[int]:
    """What the limits of this process's cgroups, version 1 and 2, and of all their parents leave, in bytes.

    Args:
        cgroups: the content of /proc/self/cgroup.
        mount: the folder where cgroups are mounted.
    """
    folders = limit_folders(cgroups, mount, "memory")
    left = [_left_v2(folder) if version == 2 else _left_v1(folder) for version, folder in folders]
    return [number for number in left if number is not None]


def _left_v2(folder: Path) -> int | None:
    """What `memory.max` and `memory.high` leave; None where neither is set."""
    limit, used = _limit_v2(folder), _number(folder / "memory.current")
    if limit is None or used is None:
        return None
    stat = _numbers(folder / "memory.stat")
    return max(0, limit - used + stat.get("inactive_file", 0) + stat.get("active_file", 0))


def _left_v1(folder: Path) -> int | None:
    limit, used = _limit_v1(folder), _number(folder / "memory.usage_in_bytes")
    if limit is None or used is None:
        return None
    stat = _numbers(folder / "memory.stat")
    return max(0, limit - used + stat.get("total_inactive_file", 0) + stat.get("total_active_file", 0))


def _limit_v2(folder: Path) -> int | None:
    limits = [limit for name in ("max", "high") if (limit := _number(folder / f"memory.{name}")) is not None]
    return min(limits, default=None)


def _limit_v1(folder: Path) -> int | None:
    return _number(folder / "memory.limit_in_bytes")


def _number(file: Path) -> int | None:
    """The number that a file holds; `max`, or no such file: None."""
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return None


def _numbers(file: Path) -> dict[str, int]:
    """The numbers of a file of names and numbers, in bytes; none where it cannot be read."""
    try:
        lines = [line.split() for line in file.read_text().splitlines()]
    except OSError:
        return {}
    numbers = [line for line in lines if len(line) > 1 and line[1].isdigit()]
    return {name: int(number) * (1024 if unit == ["kB"] else 1) for name, number, *unit in numbers}


def _slurm_memory(environ: Mapping[str, str]) -> list[int]:
    """What Slurm has allocated, which not every cluster enforces by a cgroup; 0 stands for all of the node."""
    per_node, per_core = (environ.get(f"SLURM_MEM_PER_{what}", "") for what in ("NODE", "CPU"))
    cores = environ.get("SLURM_CPUS_ON_NODE", "")
    if per_node.isdigit() and int(per_node):
        return [int(per_node) << 20]
    if per_core.isdigit() and cores.isdigit() and int(per_core):
        return [(int(per_core) << 20) * int(cores)]
    return []
