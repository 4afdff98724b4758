"""How many CPU cores this process may use, and how several processes divide them."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from run_batch.jobs.machine.cgroups import CGROUPS, limit_folders, own_cgroups
from run_batch.jobs.machine.slurm_environment import tasks_on_node


def usable_cores() -> int:
    """The fewest cores that CPU affinity, the CPU quotas of cgroups and Slurm's allocation allow; at least 1."""
    limits = [len(os.sched_getaffinity(0)), *cgroup_quotas(own_cgroups(), CGROUPS)]
    # Many clusters do not bind tasks to cores: then only Slurm's variables tell the allocation.
    per_task, on_node = (os.environ.get(f"SLURM_CPUS_{where}", "") for where in ("PER_TASK", "ON_NODE"))
    if per_task.isdigit():
        limits.append(int(per_task))
    elif on_node.isdigit():
        limits.append(int(on_node) // tasks_on_node(os.environ))
    return max(1, min(limits))


def divide(total: int, count: int) -> list[int]:
    """`total` in `count` parts that differ by one at most; each is at least 1."""
    return [max(1, total * (i + 1) // count - total * i // count) for i in range(count)]


def divide_cores(count: int) -> list[set[int]]:
    """The cores of this process in `count` groups of neighbours; where there are fewer cores, groups share them.

    The hardware threads of a core, and the cores of a socket, come one after the other: their groups are not split
    where that can be helped.
    """
    cores = sorted(os.sched_getaffinity(0), key=_position)
    if len(cores) < count:
        return [{cores[i % len(cores)]} for i in range(count)]
    return [set(cores[len(cores) * i // count : len(cores) * (i + 1) // count]) for i in range(count)]


@contextmanager
def bound_to(cores: set[int]) -> Iterator[None]:
    """Run this thread on some cores only; a process that it starts inherits them."""
    before = os.sched_getaffinity(0)
    with suppress(OSError):  # cores that were taken away meanwhile
        os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        with suppress(OSError):
            os.sched_setaffinity(0, before)


def _position(core: int) -> tuple[int, int, int]:
    """Socket, core of that, number."""
    folder = Path(f"/sys/devices/system/cpu/cpu{core}/topology")
    try:
        socket, place = (int((folder / name).read_text()) for name in ("physical_package_id", "core_id"))
    except (OSError, ValueError):
        return 0, core, core
    return socket, place, core


def cgroup_quotas(cgroups: str, mount: Path) -> list[int]:
    """CPU quotas of this process's cgroups, version 1 and 2, and of all their parents, in cores, rounded up.

    Args:
        cgroups: the content of /proc/self/cgroup.
        mount: the folder where cgroups are mounted.
    """
    folders = limit_folders(cgroups, mount, "cpu")
    quotas = [_quota_v2(folder) if version == 2 else _quota_v1(folder) for version, folder in folders]
    return [quota for quota in quotas if quota is not None]


def _quota_v2(folder: Path) -> int | None:
    """`cpu.max` holds quota and period; quota `max`, or no such file: no quota."""
    try:
        quota, period = (folder / "cpu.max").read_text().split()
        return _cores(int(quota), int(period))
    except (OSError, ValueError):
        return None


def _quota_v1(folder: Path) -> int | None:
    """A quota of -1, or no such file: no quota."""
    try:
        quota, period = (int((folder / f"cpu.cfs_{name}_us").read_text()) for name in ("quota", "period"))
        return _cores(quota, period)
    except (OSError, ValueError):
        return None


def _cores(quota: int, period: int) -> int | None:
    """Cores, rounded up, of a quota of CPU time per period, both in microseconds; None for no quota."""
    return max(1, -(-quota // period)) if quota > 0 and period > 0 else None
