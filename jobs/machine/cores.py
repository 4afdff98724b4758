"""How many CPU cores this process may use."""

import os
from pathlib import Path

from run_batch.jobs.machine.cgroups import CGROUPS, own_cgroups, with_parents
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


def cgroup_quotas(cgroups: str, mount: Path) -> list[int]:
    """CPU quotas of this process's cgroups, version 1 and 2, and of all their parents, in cores, rounded up.

    Args:
        cgroups: the content of /proc/self/cgroup.
        mount: the folder where cgroups are mounted.
    """
    quotas: list[int | None] = []
    for line in cgroups.splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            root, read_quota = mount, _quota_v2
        elif "cpu" in controllers.split(","):
            root, read_quota = mount / "cpu", _quota_v1  # where cpu and cpuacct are mounted together, a link to that
        else:
            continue
        quotas += map(read_quota, with_parents(root, path))
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
