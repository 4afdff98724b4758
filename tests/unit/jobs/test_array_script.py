"""The script of an array, run without Slurm; tests/slurm runs it on a real one."""

import io
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import committed_jobs
import pytest

import jobs
from run_batch.jobs.job.config import JobConfig, load_config
from run_batch.jobs.slurm import submit
from run_batch.jobs.slurm.array_script import array_script
from run_batch.jobs.slurm.sbatch_options import SlurmTable, read_slurm_table
from run_batch.jobs.slurm.submit import hub_environment


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
        (74, "RUNNING", REQUEUED, "scontrol requeue 12_3\nscontrol update JobId=12_3 StartTime=now+600\n"),
        (75, "RUNNING", REQUEUED, "scontrol requeue 12_3\n"),
        (138, "RUNNING", REQUEUED, "scontrol requeue 12_3\n"),
        (143, "RUNNING", REQUEUED, "scontrol requeue 12_3\n"),
        (137, "RUNNING", REQUEUED, ""),
        (74, "COMPLETING", REQUEUED, ""),
        (75, "COMPLETING", REQUEUED, ""),
        (75, "RUNNING", SlurmTable({"no-requeue": None}), ""),
        (74, "RUNNING", SlurmTable({"no-requeue": None}), ""),
        (74, "RUNNING", SlurmTable({"requeue": None}, max_requeues=0), ""),
        (75, "RUNNING", SlurmTable({"requeue": None}, max_requeues=0), ""),
    ],
)
def test_only_a_task_that_still_runs_and_may_go_on_is_requeued(
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


_LONG = "for i in {1..400};"  # but not forever: a test that fails leaves no process behind


@pytest.mark.parametrize("signalled", ["USR1", "TERM"])
def test_a_signal_to_the_script_reaches_the_command_and_its_exit_code_comes_back(
    tmp_path: Path, signalled: str
) -> None:
    # While the command saves, the script gets another one: it must not take that for the end of the command, which
    # ends only when that one has reached it, too.
    other = {"USR1": "TERM", "TERM": "USR1"}[signalled]
    save = f'kill -{other} $PPID; {_LONG} do [ "$passed_on" ] && exit 75; sleep 0.05; done; exit 1'
    go_on = f"{_LONG} do sleep 0.05; done"
    command = f"trap passed_on=1 {other}; trap '{save}' {signalled}; kill -{signalled} $PPID; {go_on}"
    words = ["bash", "-c", command]
    done = run_script(tmp_path, array_script(REQUEUED, 8, words, {}))
    assert (done.returncode, done.stdout) == (75, "scontrol requeue 12_3\n"), done.stderr


@pytest.mark.parametrize(
    ("options", "stepped"),
    [({}, False), ({"ntasks": "1"}, False), ({"ntasks": "8"}, True), ({"ntasks-per-node": "8"}, True)],
)
def test_several_processes_a_task_are_started_by_srun(options: dict[str, str], stepped: bool) -> None:
    assert ("\nsrun " in array_script(SlurmTable(options), 1, ["run-batch"], {})) == stepped


def config(folder: Path, slurm: Mapping[str, Any], **tables: Mapping[str, Any]) -> JobConfig:
    return load_config(jobs.write_job(folder, {"uid": ["a"]}, slurm=slurm, **tables))


def test_tasks_do_not_ask_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", "~/hub")
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    monkeypatch.delenv("HF_DATASETS_CACHE", raising=False)
    local = config(tmp_path / "a", {})
    assert hub_environment(local) == {"HF_HUB_OFFLINE": "1"}
    on_hub = config(tmp_path / "b", {}, model={"path": "llava-hf/llava-1.5-7b-hf"})
    assert hub_environment(on_hub) == {"HF_HUB_OFFLINE": "1", "HF_HOME": os.path.expanduser("~/hub")}
    assert hub_environment(config(tmp_path / "c", {}, input={"path": "hf://datasets/a/b.parquet"})) == {}


@pytest.mark.parametrize("file", sorted((jobs.ROOT / "scripts" / "slurm").iterdir()), ids=lambda file: file.stem)
@pytest.mark.parametrize(
    ("code", "restarts", "said"),
    [
        (1, "0", ""),
        (74, "0", "scontrol requeue TASK\nscontrol update JobId=TASK StartTime=now+600\n"),
        (74, "50", ""),
        (75, "0", "scontrol requeue TASK\n"),
        (75, "50", ""),
    ],
)
def test_the_files_to_adapt_requeue_what_may_go_on_within_one_bound(
    tmp_path: Path, file: Path, code: int, restarts: str, said: str
) -> None:
    for name, body in {"srun": f"exit {code}", "scontrol": 'echo "scontrol $*"'}.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{body}\n")
        (tmp_path / name).chmod(0o755)
    environ = {"PATH": f"{tmp_path}:/usr/bin:/bin", "TMPDIR": str(tmp_path), "SLURM_RESTART_COUNT": restarts}
    environ |= {"SLURM_JOB_ID": "15", "SLURM_ARRAY_JOB_ID": "12", "SLURM_ARRAY_TASK_ID": "3"}
    done = subprocess.run(["bash", file, "job.toml"], env=environ, capture_output=True, text=True, timeout=30)
    task = "15" if "#SBATCH --array" not in file.read_text() else "12_3"
    assert (done.returncode, done.stdout) == (code, said.replace("TASK", task)), done.stderr


def test_who_has_submitted_is_told_how_to_follow_that_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in (("check_job", ("", 0)), ("_submit", "7"), ("_download_weights", None)):
        monkeypatch.setattr(submit, name, lambda *_, value=value: value)
    job = committed_jobs.prepared(tmp_path, {"prompt": list("abcdef")})
    table = read_slurm_table(job.config, (), 2)
    out = io.StringIO()
    assert submit.submit_job(job, table, Path("a job.toml"), ("output.path=x y",), False, out) == 0
    assert out.getvalue() == "7\n"
    follow = "follow it: run-batch status --config 'a job.toml' --set 'output.path=x y' --watch\n"
    assert capsys.readouterr().err.endswith(follow)
