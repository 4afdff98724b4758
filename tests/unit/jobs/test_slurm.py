"""What a process finds out inside Slurm; tests/slurm shows it on a real one."""

import os
from collections.abc import Mapping

import pytest

from run_batch.jobs.job.errors import JobError
from run_batch.jobs.job.shares import Share
from run_batch.jobs.machine.cores import usable_cores
from run_batch.jobs.machine.slurm_environment import find_share, own_devices, take_own_gpus


def array(task: int, first: int, last: int, step: int = 1, count: int | None = None) -> dict[str, str]:
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


@pytest.mark.parametrize(
    ("environ", "share"),
    [
        ({}, None),
        (BATCH_SCRIPT, None),
        (step(0, "1"), None),
        (step(3, "4"), Share(3, 4)),
        (array(0, 0, 0), Share(0, 1)),
        (array(2, 0, 7), Share(2, 8)),
        (array(8, 1, 8), Share(7, 8)),
        (array(4, 0, 5, step=2), Share(2, 3)),
        (array(1, 1, 6, step=2), Share(0, 3)),
        ({**array(2, 0, 7), **BATCH_SCRIPT}, Share(2, 8)),
        ({**array(2, 0, 7), **step(3, "4")}, Share(11, 32)),
        ({**array(7, 3, 7, count=2), "RUN_BATCH_ARRAY_COUNT": "8"}, Share(7, 8)),
        ({**array(1, 1, 1), "RUN_BATCH_ARRAY_COUNT": "8", **step(1, "2")}, Share(3, 16)),
    ],
)
def test_a_process_finds_its_share(environ: Mapping[str, str], share: Share | None) -> None:
    assert find_share(environ) == share


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        (array(5, 1, 7, count=3), "an array of 3 tasks from 1 to 7 is not a whole one"),
        (array(3, 3, 3), "an array of 1 tasks from 3 to 3 is not a whole one"),
        (array(4, 4, 7), "export RUN_BATCH_ARRAY_COUNT=N"),
        ({**array(8, 8, 8), "RUN_BATCH_ARRAY_COUNT": "8"}, "array task 8: RUN_BATCH_ARRAY_COUNT = 8, so tasks are"),
        ({**array(1, 0, 7), "RUN_BATCH_ARRAY_COUNT": "all"}, "RUN_BATCH_ARRAY_COUNT is 'all', not a number"),
        ({"SLURM_ARRAY_TASK_ID": "1"}, "SLURM_ARRAY_TASK_MIN is None, not a number"),
    ],
)
def test_an_array_that_cannot_be_counted_is_refused(environ: Mapping[str, str], said: str) -> None:
    with pytest.raises(JobError, match=said) as error:
        find_share(environ)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("environ", "needed", "devices"),
    [
        ({"CUDA_VISIBLE_DEVICES": "0,1"}, 1, None),  # no Slurm
        ({**step(1, "4", local=1)}, 1, None),  # no GPUs
        ({**step(1, "4", local=1), "CUDA_VISIBLE_DEVICES": "NoDevFiles"}, 1, None),
        ({**BATCH_SCRIPT, "CUDA_VISIBLE_DEVICES": "0,1,2,3"}, 4, None),
        ({**step(2, "4", local=2), "CUDA_VISIBLE_DEVICES": "0,1,2,3"}, 1, "2"),
        ({**step(3, "2(x2)", node=1, local=1), "CUDA_VISIBLE_DEVICES": "4,5,6,7"}, 2, "6,7"),
        ({**step(2, "3,1", local=2), "CUDA_VISIBLE_DEVICES": "GPU-a,GPU-b,GPU-c"}, 1, "GPU-c"),
        ({**step(2, "4", local=2), "CUDA_VISIBLE_DEVICES": "0", "SLURM_GPUS_ON_NODE": "4"}, 1, None),  # bound by Slurm
        ({**step(2, "4", local=2), "CUDA_VISIBLE_DEVICES": "0,1", "SLURM_GPUS_ON_NODE": "8"}, 2, None),
    ],
)
def test_a_task_takes_its_own_gpus_and_no_others(environ: dict[str, str], needed: int, devices: str | None) -> None:
    before = environ.get("CUDA_VISIBLE_DEVICES")
    assert own_devices(environ, needed, 0) == devices
    take_own_gpus(environ, needed)
    assert environ.get("CUDA_VISIBLE_DEVICES") == devices or before


def test_gpus_that_slurm_does_not_manage_are_shared_out_too() -> None:
    assert own_devices(step(1, "2", local=1), 2, 4) == "2,3"
    assert own_devices(step(7, "4(x2)", node=1, local=3), 2, 8) == "6,7"


@pytest.mark.parametrize(
    ("environ", "needed", "said"),
    [
        ({**BATCH_SCRIPT, "CUDA_VISIBLE_DEVICES": "0,1"}, 4, "= 4, and this task sees 2 GPUs"),
        ({**step(0, "4"), "CUDA_VISIBLE_DEVICES": "0,1"}, 1, "of 4 tasks on this node each sees 2 GPUs"),
        ({**step(0, "4"), "CUDA_VISIBLE_DEVICES": "0", "SLURM_GPUS_ON_NODE": "1"}, 1, "each sees 1 GPUs"),
    ],
)
def test_gpus_that_cannot_be_shared_out_are_refused(environ: Mapping[str, str], needed: int, said: str) -> None:
    with pytest.raises(JobError, match=said) as error:
        own_devices(environ, needed, 0)
    assert f"--gpus-per-task={needed}" in str(error.value)


def test_tasks_that_slurm_does_not_bind_share_the_cores_of_their_node(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(64)))
    monkeypatch.setattr("run_batch.jobs.machine.cores.cgroup_quotas", lambda folder: [])
    for name, value in {**step(2, "4", local=2), "SLURM_CPUS_ON_NODE": "32"}.items():
        monkeypatch.setenv(name, value)
    assert usable_cores() == 8
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "3")
    assert usable_cores() == 3
