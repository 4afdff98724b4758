"""How much memory is left on this machine for a process, by the kernel, all cgroups above it, and Slurm."""

import os
from collections.abc import Mapping
from pathlib import Path

from run_batch.jobs.machine.cgroups import CGROUPS, limit_folders, own_cgroups
from run_batch.jobs.machine.slurm_environment import tasks_on_node

# Of the memory that is left: the rest is for the engine, its weights on a CPU, and the caches of the file system.
_SHARE = 4


def default_row_memory(processes: int = 1) -> int:
    """Bytes that the rows of one process may take where the job does not say.

    Args:
        processes: of this run on this machine, which divide the memory.
    """
    return memory_left() // _SHARE // max(1, processes)


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
    limits = [limit for name in ("max", "high") if (limit := _number(folder / f"memory.{name}")) is not None]
    used = _number(folder / "memory.current")
    if not limits or used is None:
        return None
    stat = _numbers(folder / "memory.stat")
    return max(0, min(limits) - used + stat.get("inactive_file", 0) + stat.get("active_file", 0))


def _left_v1(folder: Path) -> int | None:
    limit, used = (_number(folder / f"memory.{name}_in_bytes") for name in ("limit", "usage"))
    if limit is None or used is None:
        return None
    stat = _numbers(folder / "memory.stat")
    return max(0, limit - used + stat.get("total_inactive_file", 0) + stat.get("total_active_file", 0))


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
