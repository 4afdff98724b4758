"""Which share of a job a process finds in Slurm's environment; tests/slurm shows it on a real one."""

from collections.abc import Mapping

import pytest
from slurm_environments import BATCH_SCRIPT, array, step

from run_batch.jobs.job.errors import JobError
from run_batch.jobs.job.shares import Share
from run_batch.jobs.machine.slurm_environment import find_share


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
