"""What docs/slurm.md says of other schedulers: its Kubernetes job, pod by pod, and shares as tasks of Ray."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from stand_ins import Speed
from standing import StandingJob, make_job
from submitted import COMMAND, write_speed

import jobs
from run_batch.jobs.job.errors import EXIT_BAD_JOB, EXIT_RUN_FAILED, EXIT_TOO_MANY_FAILURES

ROWS = 120
RAY_PYTHON = jobs.ROOT / ".bench" / "ray" / "bin" / "python"


@pytest.fixture
def job(tmp_path: Path) -> StandingJob:
    job = make_job(tmp_path, [f"prompt {i}" for i in range(ROWS)], output={"rows_per_shard": 10})
    write_speed(job.config.parent, Speed())
    return job


@pytest.fixture
def command(tmp_path: Path) -> Path:
    """`run-batch`, with stand-ins."""
    path = tmp_path / "bin" / "run-batch"
    path.parent.mkdir()
    path.write_text(f'#!/bin/sh\nexec {sys.executable} {COMMAND} "$@"\n')
    path.chmod(0o755)
    return path


def check_complete(job: StandingJob) -> None:
    assert job.table()["text"].to_pylist() == [f"text of prompt {i}" for i in range(ROWS)] and job.is_complete()
    assert json.loads((job.store / ".run_batch" / "summary.json").read_text())["rows"] == ROWS


def kubernetes_job() -> dict[str, Any]:
    page = (jobs.ROOT / "docs" / "slurm.md").read_text()
    manifest: dict[str, Any] = yaml.safe_load(re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)[0])
    return manifest


def test_kubernetes_restarts_what_may_pass_within_a_bound() -> None:
    spec = kubernetes_job()["spec"]
    rules = spec["podFailurePolicy"]["rules"]
    assert spec["backoffLimitPerIndex"] > 0 and {rule["action"] for rule in rules} == {"FailIndex"}
    given_up = {code for rule in rules for code in rule["onExitCodes"]["values"]}
    assert given_up == {EXIT_RUN_FAILED, EXIT_BAD_JOB, EXIT_TOO_MANY_FAILURES}, "74 and 75 count against the limit"


def test_the_pods_of_the_kubernetes_job_do_the_whole_job(job: StandingJob, command: Path) -> None:
    manifest = kubernetes_job()
    container = manifest["spec"]["template"]["spec"]["containers"][0]
    (script,) = container["args"]
    words = [*container["command"], script.replace("/data/job.toml", str(job.config))]
    path = f"{command.parent}:{os.environ['PATH']}"
    pods = [
        subprocess.Popen(words, env={**os.environ, "PATH": path, "JOB_COMPLETION_INDEX": str(index)})
        for index in range(manifest["spec"]["completions"])
    ]
    assert [pod.wait(60) for pod in pods] == [0] * len(pods)
    check_complete(job)


@pytest.mark.skipif(not RAY_PYTHON.exists(), reason="no Ray here: make bench-ray sets up an environment with it")
def test_shares_run_as_tasks_of_a_ray_cluster(job: StandingJob, command: Path) -> None:
    words = [str(RAY_PYTHON), str(jobs.ROOT / "scripts" / "ray_shares.py"), str(job.config), "--shares=3"]
    done = subprocess.run([*words, "--gpus=0", "--cpus=0.5", f"--command={command}"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    check_complete(job)
