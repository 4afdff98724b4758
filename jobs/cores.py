"""How many cores this process may really use."""

import os
from pathlib import Path


def usable_cores() -> int:
    """The smallest of what CPU affinity, the cgroup's quota and Slurm's allocation leave to this process."""
    limits = [len(os.sched_getaffinity(0))]
    quota = _cgroup_quota()
    if quota is not None:
        limits.append(quota)
    slurm = os.environ.get("SLURM_CPUS_PER_TASK", "")
    if slurm.isdigit():
        limits.append(int(slurm))
    return max(1, min(limits))


def _cgroup_quota() -> int | None:
    """Cores of the cgroup's CPU quota, rounded up; None where there is none."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
    except (OSError, ValueError):
        return None
    return None if quota == "max" else max(1, -(-int(quota) // int(period)))
