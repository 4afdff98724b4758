"""Whose fault it is when the first rows cannot be mapped, before a run."""

from pathlib import Path

import pytest

import jobs
from run_batch.io.inputs.source import DamagedInputError, InputError, LostInputError
from run_batch.jobs.check import check_job
from run_batch.jobs.job.config import load_config
from run_batch.jobs.job.errors import JobError, RunError
from run_batch.jobs.job.prepare import prepare
from run_batch.jobs.mapping.mapping_faults import mapping_faults
from run_batch.jobs.trial.try_job import Trial, try_job
from run_batch.model.declaration import DeclarationError, JobFault


@pytest.mark.parametrize(
    ("raised", "told_as"),
    [
        (DamagedInputError("a.parquet is damaged"), JobError),
        (LostInputError("a.parquet no longer exists"), RunError),
        (InputError("a.parquet"), JobError),
        (DeclarationError("two mappers"), JobError),
        (JobFault("no memory"), JobError),
        (RunError("lost"), RunError),
        (JobError("wrong"), JobError),
    ],
)
def test_a_known_fault_keeps_its_message(raised: Exception, told_as: type[Exception]) -> None:
    with pytest.raises(told_as, match=str(raised)), mapping_faults():
        raise raised


def test_a_bug_of_run_batch_stays_one() -> None:
    code = compile("raise KeyError('x')", "own.py", "exec")
    with pytest.raises(KeyError), mapping_faults():
        exec(code, {"__name__": "run_batch.own"})


def test_a_library_that_fails_is_named() -> None:
    with pytest.raises(JobError, match="the first rows cannot be mapped: ValueError: "), mapping_faults():
        int("x")


def test_a_damaged_file_is_named_by_check_and_try(tmp_path: Path) -> None:
    config = load_config(jobs.write_job(tmp_path, jobs.rows(20), input={"id_column": None}))
    content = bytearray((tmp_path / "rows.parquet").read_bytes())
    content[4:2000] = bytes(1996)
    (tmp_path / "rows.parquet").write_bytes(content)
    with pytest.raises(JobError, match=r"rows\.parquet is damaged"):
        check_job(prepare(config))
    with pytest.raises(JobError, match=r"rows\.parquet is damaged"):
        try_job(prepare(config, writes=False), Trial(2))
