"""The commented files in scripts/slurm, submitted as they are; and the real thing, with vLLM."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cluster import Cluster, wait_until
from stand_ins import Speed
from submitted import COMMAND, SlurmJob

import jobs

ROWS = 160
TEXTS = [f"text of prompt {i}" for i in range(ROWS)]
FILES = jobs.ROOT / "scripts" / "slurm"
MakeJob = Callable[..., SlurmJob]


def submit(job: SlurmJob, name: str, folder: Path, *options: str) -> str:
    """Submit a file, where `run-batch` is the one with stand-ins; its id."""
    command = folder / "bin" / "run-batch"
    command.parent.mkdir(exist_ok=True)
    command.write_text(f'#!/bin/sh\nexec {sys.executable} {COMMAND} "$@"\n')
    command.chmod(0o755)
    path = f"PATH={command.parent}:{os.environ['PATH']}"
    log = f"--output={folder}/%x-%A_%a.log"
    script = str(FILES / f"{name}.sbatch")
    return job.cluster.ask("env", path, "sbatch", "--parsable", log, *options, script, str(job.standing.config))


def said(folder: Path) -> str:
    return "\n".join(path.read_text() for path in folder.glob("*.log"))


@pytest.mark.parametrize(
    ("name", "gpus_a_task", "shares", "options"),
    [
        ("one-gpu-a-task", 1, 8, []),
        ("tensor-parallel", 4, 4, []),
        pytest.param("preemptible", 1, 8, ["--partition=main"], marks=pytest.mark.long),
    ],
)
def test_a_file_for_a_usual_shape_does_a_whole_job(
    make_job: MakeJob, tmp_path: Path, name: str, gpus_a_task: int, shares: int, options: list[str]
) -> None:
    engine = {"tensor_parallel_size": gpus_a_task}
    job = make_job(ROWS, Speed(step_seconds=0.1), output={"rows_per_shard": 10}, engine=engine)
    array = submit(job, name, tmp_path, *options)
    job.wait(array, "COMPLETED")
    assert job.texts == TEXTS and job.standing.is_complete()
    begun = {path.name for path in (job.standing.store / ".run_batch" / "shares").iterdir()}
    # One that finds nothing left leaves nothing.
    assert begun <= {f"{share}-of-{shares}" for share in range(shares)} and len(begun) >= 2
    placed = job.placed().values()
    assert all(len(place["CUDA_VISIBLE_DEVICES"].split(",")) == gpus_a_task for place in placed)
    assert len({place["VLLM_CACHE_ROOT"] for place in placed}) == len(placed), "processes share a cache"


def test_a_file_requeues_itself_on_the_notice_and_not_when_cancelled(
    make_job: MakeJob, cluster: Cluster, tmp_path: Path
) -> None:
    job = make_job(ROWS, Speed(step_seconds=0.5), output={"rows_per_shard": 10})
    array = submit(job, "one-gpu-a-task", tmp_path, "--array=0-1")
    wait_until(lambda: len(job.standing.generated()) > 20, 60, lambda: said(tmp_path) + cluster.logs())
    cluster.ask("scancel", "--signal=USR1", array + "_1")  # to its steps, as --signal=USR1@120 does
    wait_until(lambda: cluster.facts(array + "_1")[0]["Restarts"] == "1", 30, cluster.logs)
    cluster.ask("scancel", array)
    job.wait(array, "CANCELLED")


@pytest.mark.engine
def test_an_array_with_vllm_gives_what_a_single_run_gives(tmp_path: Path, cluster: Cluster) -> None:
    rows = jobs.rows(60)
    single = jobs.succeed(jobs.write_job(tmp_path / "single", rows, output={"rows_per_shard": 10}))
    array_job = jobs.write_job(tmp_path / "array", rows, output={"rows_per_shard": 10})
    words = [str(jobs.COMMAND), "submit", "--config", str(array_job), "--tasks", "2"]
    array = cluster.ask(*words)
    logs = tmp_path / "array" / "out" / ".run_batch" / "logs"
    cluster.wait(array, "COMPLETED", seconds=150, explain=lambda: "".join(log.read_text() for log in logs.iterdir()))
    assert jobs.results(array_job).equals(single)
    assert (tmp_path / "array" / "out" / "_SUCCESS").exists()
