"""`run-batch ray` on a real Ray cluster of several nodes."""

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from scheduled import PYTHON, check_complete, make_scheduled_job
from stand_ins import Speed
from standing import StandingJob, wait_for_rows
from submitted import COMMAND

pytestmark = pytest.mark.skipif(not PYTHON.exists(), reason="no Ray here: make ray-setup installs it")


@dataclass(frozen=True)
class RayNodes:
    """A cluster; see ray_nodes.py."""

    process: subprocess.Popen[str]
    address: str

    def kill_a_node(self) -> None:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "killed\n"

    def start(self, job: StandingJob, *arguments: str) -> subprocess.Popen[str]:
        """`run-batch ray` for a job."""
        words = [str(PYTHON), str(COMMAND), "ray", "--config", str(job.config), "--address", self.address, *arguments]
        return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture
def cluster() -> Iterator[RayNodes]:
    words = [str(PYTHON), str(Path(__file__).with_name("ray_nodes.py")), "3"]
    environ = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0"}
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environ) as process:
        assert process.stdout is not None
        yield RayNodes(process, process.stdout.readline().strip())
        with contextlib.suppress(BrokenPipeError):
            process.communicate(timeout=60)


def shares_of(job: StandingJob) -> set[str]:
    """The numbers of the shares that have processes."""
    found = set()
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if str(job.config) in words and "--task-index" in words:
            found.add(words[words.index("--task-index") + 1])
    return found


def test_shares_survive_a_node_that_dies(tmp_path: Path, cluster: RayNodes) -> None:
    job = make_scheduled_job(tmp_path, Speed(step_seconds=0.1))
    command = cluster.start(job, "--tasks=3")
    wait_for_rows(job, 30, timeout=90)
    assert shares_of(job) == {"0", "1", "2"}
    cluster.kill_a_node()
    output, said = command.communicate(timeout=240)
    assert command.returncode == 0, said
    assert output == "complete: 400 of 400 rows done, 0 failed, 0 left\n"
    check_complete(job)
    # What was in the engine of the dead node's share, or not in its journal yet.
    assert len(job.generated()) - 400 <= 4 * 8
    assert not shares_of(job)


def test_an_interrupted_job_saves_what_is_finished(tmp_path: Path, cluster: RayNodes) -> None:
    job = make_scheduled_job(tmp_path, Speed(step_seconds=0.1))
    command = cluster.start(job, "--tasks=2")
    wait_for_rows(job, 30, timeout=90)
    command.send_signal(signal.SIGTERM)
    _, said = command.communicate(timeout=120)
    assert command.returncode == 75, said
    assert not shares_of(job)
    command = cluster.start(job, "--tasks=3")
    _, said = command.communicate(timeout=240)
    assert command.returncode == 0, said
    check_complete(job)
    assert len(job.generated()) == 400, "a row was generated twice"
