"""How many cores this process may really use."""

import os
from pathlib import Path

from run_batch.jobs.machine.slurm_environment import tasks_on_node

_CGROUPS = Path("/sys/fs/cgroup")


def usable_cores() -> int:
    """The smallest of what CPU affinity, the cgroups' quotas and Slurm's allocation leave to this process."""
    limits = [len(os.sched_getaffinity(0)), *cgroup_quotas(_own_cgroup())]
    # Many clusters bind no task to its cores.
    per_task, on_node = (os.environ.get(f"SLURM_CPUS_{where}", "") for where in ("PER_TASK", "ON_NODE"))
    if per_task.isdigit():
        limits.append(int(per_task))
    elif on_node.isdigit():
        limits.append(int(on_node) // tasks_on_node(os.environ))
    return max(1, min(limits))


def _own_cgroup() -> Path:
    """The folder of this process's cgroup (version 2)."""
    try:
        own = Path("/proc/self/cgroup").read_text().partition("0::")[2].split("\n")[0]
    except OSError:
        own = ""
    folder = _CGROUPS / own.lstrip("/")
    # In a container the path may be one of the host's; then the container's own is at the root.
    return folder if folder.is_dir() else _CGROUPS


def cgroup_quotas(folder: Path) -> list[int]:
    """Cores of the CPU quotas of a cgroup and of those around it, rounded up."""
    quotas = []
    while folder != folder.parent:
        try:
            quota, period = (folder / "cpu.max").read_text().split()
        except (OSError, ValueError):
            quota = "max"
        if quota != "max":
            quotas.append(max(1, -(-int(quota) // int(period))))
        folder = folder.parent
    return quotas
