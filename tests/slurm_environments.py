"""The environments that Slurm gives to the processes of a job."""


def array(task: int, first: int, last: int, step: int = 1, count: int | None = None) -> dict[str, str]:
    """The batch script of one task of the array `first`-`last`:`step`."""
    count = (last - first) // step + 1 if count is None else count
    numbers = {"ID": task, "MIN": first, "MAX": last, "STEP": step, "COUNT": count}
    return {f"SLURM_ARRAY_TASK_{name}": str(number) for name, number in numbers.items()}


def step(process: int, per_node: str, node: int = 0, local: int = 0) -> dict[str, str]:
    """A process started by srun, in a job of 4 tasks."""
    count = {"1": 1, "2": 2, "4": 4, "3,1": 4, "2(x2)": 4, "4(x2)": 8}[per_node]
    return {
        "SLURM_JOB_ID": "7",
        "SLURM_STEP_ID": "0",
        "SLURM_STEP_NUM_TASKS": str(count),
        "SLURM_STEP_TASKS_PER_NODE": per_node,
        "SLURM_PROCID": str(process),
        "SLURM_NODEID": str(node),
        "SLURM_LOCALID": str(local),
    }


BATCH_SCRIPT = {"SLURM_JOB_ID": "7", "SLURM_PROCID": "0", "SLURM_NTASKS": "4", "SLURM_NODEID": "0"}
