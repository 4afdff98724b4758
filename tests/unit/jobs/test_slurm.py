"""The [slurm] table, and the script of an array; tests/slurm shows both on a real one."""

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import jobs
from run_batch.jobs.job.config import JobConfig, load_config
from run_batch.jobs.job.errors import JobError
from run_batch.jobs.slurm.sbatch_options import SlurmTable, read_slurm_table
from run_batch.jobs.slurm.submit import array_script, hub_environment

# The [slurm] table


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


# The script


def run_script(folder: Path, script: str, **tools: str) -> subprocess.CompletedProcess[str]:
    """Run a script outside of Slurm, with commands of Slurm's that are `tools`."""
    for name, body in {"squeue": "echo RUNNING", "scontrol": 'echo "scontrol $*"', **tools}.items():
        (folder / name).write_text(f"#!/bin/bash\n{body}\n")
        (folder / name).chmod(0o755)
    environ = {"PATH": f"{folder}:/usr/bin:/bin", "SLURM_ARRAY_JOB_ID": "12", "SLURM_ARRAY_TASK_ID": "3"}
    environ["TMPDIR"] = str(folder)
    (folder / "script.sh").write_text(script)
    return subprocess.run(["bash", "script.sh"], cwd=folder, env=environ, capture_output=True, text=True, timeout=30)


REQUEUED = SlurmTable({"requeue": None})


@pytest.mark.parametrize(
    ("code", "state", "table", "said"),
    [
        (0, "RUNNING", REQUEUED, ""),
        (1, "RUNNING", REQUEUED, ""),
        (3, "RUNNING", REQUEUED, ""),
        (75, "RUNNING", REQUEUED, "scontrol requeue 12_3\n"),
        (138, "RUNNING", REQUEUED, "scontrol requeue 12_3\n"),
        (143, "RUNNING", REQUEUED, "scontrol requeue 12_3\n"),
        (137, "RUNNING", REQUEUED, ""),
        (75, "COMPLETING", REQUEUED, ""),
        (75, "RUNNING", SlurmTable({"no-requeue": None}), ""),
        (75, "RUNNING", SlurmTable({"requeue": None}, max_requeues=0), ""),
    ],
)
def test_only_an_interrupted_task_that_still_runs_is_requeued(
    tmp_path: Path, code: int, state: str, table: SlurmTable, said: str
) -> None:
    script = array_script(table, 8, ["bash", "-c", f"exit {code}"], {})
    done = run_script(tmp_path, script, squeue=f"echo {state}")
    assert (done.returncode, done.stdout) == (code, said)
    assert not list(tmp_path.glob("run-batch-*")), "its cache is left behind"


def test_values_reach_the_command_as_they_are(tmp_path: Path) -> None:
    nasty = ["$(touch hacked)", "`touch hacked`", "a 'b' \"c\" \\d", "*", "{exports}{command}", "; exit 9"]
    words = ["bash", "-c", 'printf "%s\\n" "$RUN_BATCH_ARRAY_COUNT" "$HOME_OF" "$SET_UP" "$@"', "x", *nasty]
    table = SlurmTable({"requeue": None, "comment": "{command} $(touch hacked)"}, setup=("export SET_UP='{options}'",))
    done = run_script(tmp_path, array_script(table, 8, words, {"HOME_OF": "a 'b' $c"}))
    assert done.stdout.splitlines() == ["8", "a 'b' $c", "{options}", *nasty], done.stderr
    assert not (tmp_path / "hacked").exists()


def test_a_setup_line_that_fails_ends_the_task(tmp_path: Path) -> None:
    table = SlurmTable({}, setup=("false", "echo not reached"))
    done = run_script(tmp_path, array_script(table, 1, ["echo", "not reached"], {}))
    assert (done.returncode, done.stdout) == (1, "")


@pytest.mark.parametrize("signalled", ["USR1", "TERM"])
def test_a_signal_to_the_script_reaches_the_command_and_its_exit_code_comes_back(
    tmp_path: Path, signalled: str
) -> None:
    # While the command saves, the script gets another one: it must not take that for the end of the command, which
    # ends only when that one has reached it, too.
    other = {"USR1": "TERM", "TERM": "USR1"}[signalled]
    wait = "do sleep 0.01; [ -e /proc/$PPID/exe ] || exit; done"  # no longer than the script runs
    save = f'kill -{other} $PPID; until [ "$passed_on" ]; {wait}; exit 75'
    command = f"trap passed_on=1 {other}; trap '{save}' {signalled}; kill -{signalled} $PPID; while :; {wait}"
    words = ["bash", "-c", command]
    done = run_script(tmp_path, array_script(REQUEUED, 8, words, {}))
    assert (done.returncode, done.stdout) == (75, "scontrol requeue 12_3\n"), done.stderr


@pytest.mark.parametrize(
    ("options", "stepped"),
    [({}, False), ({"ntasks": "1"}, False), ({"ntasks": "8"}, True), ({"ntasks-per-node": "8"}, True)],
)
def test_several_processes_a_task_are_started_by_srun(options: dict[str, str], stepped: bool) -> None:
    assert ("\nsrun " in array_script(SlurmTable(options), 1, ["run-batch"], {})) == stepped


def test_tasks_do_not_ask_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", "~/hub")
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    monkeypatch.delenv("HF_DATASETS_CACHE", raising=False)
    local = config(tmp_path / "a", {})
    assert hub_environment(local) == {"HF_HUB_OFFLINE": "1"}
    on_hub = config(tmp_path / "b", {}, model={"path": "llava-hf/llava-1.5-7b-hf"})
    assert hub_environment(on_hub) == {"HF_HUB_OFFLINE": "1", "HF_HOME": os.path.expanduser("~/hub")}
    assert hub_environment(config(tmp_path / "c", {}, input={"path": "hf://datasets/a/b.parquet"})) == {}
