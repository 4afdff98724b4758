"""The [slurm] table of job.toml: what is accepted, and what is said of what is not."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import jobs
from run_batch.jobs.job.config import JobConfig, load_config
from run_batch.jobs.job.errors import JobError
from run_batch.jobs.slurm.sbatch_options import read_slurm_table


def config(folder: Path, slurm: Mapping[str, Any], **tables: Mapping[str, Any]) -> JobConfig:
    return load_config(jobs.write_job(folder, {"uid": ["a"]}, slurm=slurm, **tables))


def test_options_of_sbatch_are_taken_by_their_own_names(tmp_path: Path) -> None:
    slurm = {"partition": "gpu", "gpus-per-task": 1, "time": "8:00:00", "exclusive": True, "tasks": 4, "concurrency": 2}
    table = read_slurm_table(config(tmp_path, slurm), ("--partition=other", "--hold", "--comment=a=b"), tasks=8)
    assert table.options == {
        "signal": "B:USR1@120",
        "requeue": None,
        "open-mode": "append",
        "partition": "other",
        "gpus-per-task": "1",
        "time": "8:00:00",
        "exclusive": None,
        "hold": None,
        "comment": "a=b",
    }
    assert (table.tasks, table.concurrency, table.max_requeues, table.has_steps) == (8, 2, 50, False)


@pytest.mark.parametrize(
    ("slurm", "said"),
    [
        ({"partiton": "gpu"}, "unknown key slurm.partiton; did you mean slurm.partition"),
        ({"cpus_per_task": 4}, "unknown key slurm.cpus_per_task; did you mean slurm.cpus-per-task"),
        ({"task": 4}, "did you mean slurm.tasks"),
        ({"array": "0-3"}, "slurm.array cannot be set: write slurm.tasks"),
        ({"wrap": "true"}, "slurm.wrap cannot be set"),
        ({"partition": True}, "slurm.partition = true: sbatch's --partition takes a value"),
        ({"requeue": "yes"}, "slurm.requeue = 'yes': expected true or false"),
        ({"comment": "a\n#SBATCH --uid=0"}, "expected one line of text without control characters"),
        ({"comment": ""}, "slurm.comment = '': expected one line of text"),
        ({"mail-type": ["END"]}, "expected text or a number"),
        ({"tasks": 0}, "slurm.tasks = 0: expected a whole number from 1 on"),
        ({"max-requeues": -1}, "expected a whole number from 0 on"),
        ({"concurrency": "2"}, "slurm.concurrency = '2': expected a whole number"),
        ({"setup": "module load cuda"}, "slurm.setup = 'module load cuda': expected a list of shell lines"),
        ({"setup": ["a\nb"]}, "expected a list of shell lines"),
        ({"gpus-per-task": "a100:2"}, "slurm.gpus-per-task = a100:2, and engine.tensor_parallel_size x .* = 4"),
        ({"gpus-per-task": 6}, "a task uses 4 GPUs or a multiple of it"),
        ({"gres": "gpu:a100:4", "ntasks-per-node": 2}, "slurm.gres = gpu:a100:4: 2 processes a node need 8 GPUs"),
        ({"gpus-per-node": 2}, "slurm.gpus-per-node = 2: 1 processes a node need 4 GPUs"),
        ({"time": "2:00"}, "slurm.time = 2:00 is not more than the notice before its end"),
    ],
)
def test_what_contradicts_itself_is_refused(tmp_path: Path, slurm: Mapping[str, Any], said: str) -> None:
    with pytest.raises(JobError, match=said):
        read_slurm_table(config(tmp_path, slurm, engine={"tensor_parallel_size": 4}))


def test_what_does_not_contradict_itself_is_taken(tmp_path: Path) -> None:
    for number, slurm in enumerate(
        [
            {"gpus-per-task": 4},
            {"gpus-per-task": 8},
            {"gres": "gpu:8,license:x:1", "ntasks-per-node": 2},
            {"gres": "shard:1"},
            {"time": "1-0"},
            {"time": "3"},
            {"time": "0:02:01"},
            {"time": "UNLIMITED"},
            {"time": "2:00", "signal": False},
        ]
    ):
        read_slurm_table(config(tmp_path / str(number), slurm, engine={"tensor_parallel_size": 4}))


def test_the_gpus_of_a_task_are_those_of_the_engines_that_the_job_names(tmp_path: Path) -> None:
    engine = {"tensor_parallel_size": 2, "data_parallel_size": 4}
    read_slurm_table(config(tmp_path / "fits", {"gpus-per-task": 8}, engine=engine))
    for number, slurm in enumerate([{"gpus-per-task": 2}, {"gpus-per-node": 4}]):
        with pytest.raises(JobError, match="8 GPUs"):
            read_slurm_table(config(tmp_path / str(number), slurm, engine=engine))


def test_a_time_without_quotes_is_not_taken_for_text(tmp_path: Path) -> None:
    job = jobs.write_job(tmp_path, {"uid": ["a"]})
    job.write_text(job.read_text() + "[slurm]\ntime = 08:00:00\n")
    with pytest.raises(JobError, match=r"slurm.time = 08:00:00: .* put times and dates in quotes"):
        read_slurm_table(load_config(job))


def test_check_refuses_a_typo_in_the_slurm_table(tmp_path: Path) -> None:
    job = jobs.write_job(tmp_path, jobs.rows(3), slurm={"partiton": "gpu"})
    for command in (["check"], ["submit", "--tasks", "2"]):
        done = jobs.run(job, *command[1:], command=command[0])
        assert done.returncode == 2 and "did you mean slurm.partition?" in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("argument", ["-p gpu", "partition=gpu", "--tasks=3", "--setup=x"])
def test_an_argument_that_is_no_long_option_of_sbatch_is_refused(tmp_path: Path, argument: str) -> None:
    with pytest.raises(JobError, match="expected an option of sbatch's in its long form"):
        read_slurm_table(config(tmp_path, {}), (argument,))
