"""The manifest in configs/kubernetes: valid for Kubernetes, and its pods, run one by one, do the whole job."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from scheduled import PYTHON, check_complete, make_scheduled_job, stand_in_command
from stand_ins import Speed
from standing import StandingJob, wait_for_rows

import jobs

MANIFEST = jobs.ROOT / "configs" / "kubernetes" / "job.yaml"


class Pods:
    """Starts the pods of the manifest as processes, with `run-batch` and the paths of this machine."""

    def __init__(self, job: StandingJob, command: Path) -> None:
        self.spec: dict[str, Any] = yaml.safe_load(MANIFEST.read_text())["spec"]
        container = self.spec["template"]["spec"]["containers"][0]
        (script,) = container["args"]
        self._words = [*container["command"], script.replace("/data/job.toml", str(job.config))]
        self._environ = {**os.environ, "PATH": f"{command.parent}:{os.environ['PATH']}"}

    def start(self, index: int) -> subprocess.Popen[bytes]:
        return subprocess.Popen(self._words, env={**self._environ, "JOB_COMPLETION_INDEX": str(index)})

    def action(self, code: int) -> str:
        """What the manifest's policy does with a pod that ended so; the first rule that fits counts."""
        for rule in self.spec["podFailurePolicy"]["rules"]:
            if code in rule.get("onExitCodes", {}).get("values", ()):
                return str(rule["action"])
        return "Count"


def test_the_manifest_is_valid_for_kubernetes() -> None:
    if not PYTHON.exists():
        pytest.skip("make ray-setup installs the schemas of Kubernetes")
    words = [str(PYTHON), "-m", "kubernetes_validate", "--strict", str(MANIFEST)]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_pods_do_the_whole_job_and_an_interrupted_one_goes_on(tmp_path: Path) -> None:
    job = make_scheduled_job(tmp_path, Speed(step_seconds=0.02))
    pods = Pods(job, stand_in_command(tmp_path))
    count = pods.spec["completions"]
    assert f"--task-count {count}" in pods.spec["template"]["spec"]["containers"][0]["args"][0]
    running = [pods.start(index) for index in range(count)]
    wait_for_rows(job, 40)
    running[2].send_signal(signal.SIGTERM)
    assert running[2].wait(60) == 75 and pods.action(75) == "Count"
    assert [pod.wait(60) for pod in running if pod is not running[2]] == [0] * (count - 1)
    assert pods.start(2).wait(60) == 0
    check_complete(job)
    assert len(set(job.generated())) == len(job.generated()), "a row was generated twice"


@pytest.mark.parametrize(("code", "action"), [(1, "FailIndex"), (2, "FailIndex"), (3, "FailIndex"), (74, "Count")])
def test_a_share_starts_again_after_what_may_pass_within_a_limit(tmp_path: Path, code: int, action: str) -> None:
    pods = Pods(make_scheduled_job(tmp_path), Path(sys.executable))
    assert pods.action(code) == action and pods.spec["backoffLimitPerIndex"] > 0
