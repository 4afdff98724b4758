"""Which GPUs a process takes of those that it sees."""

from collections.abc import Mapping

import pytest
from slurm_environments import BATCH_SCRIPT, step

from run_batch.jobs.job.errors import JobError
from run_batch.jobs.machine.gpus import own_devices, take_own_gpus


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
def test_a_task_takes_its_own_gpus_and_no_others(
    monkeypatch: pytest.MonkeyPatch, environ: Mapping[str, str], needed: int, devices: str | None
) -> None:
    monkeypatch.setattr("run_batch.jobs.machine.gpus._installed_gpus", lambda: 0)
    assert own_devices(environ, needed, 0) == devices
    changed = dict(environ)
    take_own_gpus(changed, needed)
    assert changed.get("CUDA_VISIBLE_DEVICES") == (devices or environ.get("CUDA_VISIBLE_DEVICES"))


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
