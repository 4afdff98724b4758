"""Jobs that `run-batch submit` hands to a cluster, with stand-ins for engine and workers."""

import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cluster import Cluster
from stand_ins import Speed
from standing import StandingJob, make_job

COMMAND = Path(__file__).parent / "run_batch_stand_in.py"


@dataclass(frozen=True)
class SlurmJob:
    """A job of rows without images, and the cluster that it runs on."""

    standing: StandingJob
    cluster: Cluster

    @property
    def texts(self) -> list[str]:
        return self.standing.table()["text"].to_pylist()

    def run(self, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        """A command of run-batch, or its job, on what would be the login node."""
        words = [sys.executable, str(COMMAND), *arguments, "--config", str(self.standing.config)]
        environ = {**self.cluster.environ, **environ}
        return subprocess.run(words, env=environ, capture_output=True, text=True, timeout=60, cwd="/")

    def submit(self, tasks: int, *arguments: str) -> str:
        """The id of the array that `run-batch submit` prints."""
        done = self.run("submit", "--tasks", str(tasks), *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def wait(self, array: str, *states: str, seconds: float = 60) -> None:
        """Wait until each of its tasks is in one of `states`."""
        self.cluster.wait(array, *states, seconds=seconds, explain=self.said)

    def set_speed(self, speed: Speed) -> None:
        """Of processes that start from now on."""
        write_speed(self.standing.config.parent, speed)

    def placed(self) -> dict[tuple[str, str], dict[str, str]]:
        """What each process with an engine found in its environment, by its array task and its number in that; see
        run_batch_stand_in.py."""
        lines = (self.standing.config.parent / "placed.jsonl").read_text().splitlines()
        found = [json.loads(line) for line in lines]
        return {(place["SLURM_ARRAY_TASK_ID"], place["SLURM_PROCID"]): place for place in found}

    def said(self) -> str:
        """The logs of all its tasks."""
        return "\n".join(
            path.read_text() for path in sorted((self.standing.store / ".run_batch" / "logs").glob("*.log"))
        )


def write_speed(folder: Path, speed: Speed) -> None:
    file = folder / "speed"
    file.write_text(json.dumps(asdict(speed)))
    file.rename(file.with_suffix(".json"))


def make_slurm_job(folder: Path, cluster: Cluster, rows: int, speed: Speed | None = None, **tables: Any) -> SlurmJob:
    """A job of `rows` prompts in `folder`; `tables` are of job.toml, `slurm` among them."""
    standing = make_job(folder, [f"prompt {i}" for i in range(rows)], speed, **tables)
    job = SlurmJob(standing, cluster)
    job.set_speed(standing.speed)
    return job
