"""Arrays of tasks on a real Slurm: the same rows as one run gives, whatever becomes of tasks, nodes and daemons."""

import contextlib
import itertools
import json
import os
import random
import signal
import time
from collections.abc import Callable

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from cluster import NODES, Cluster, wait_until
from stand_ins import Speed
from standing import wait_for_rows
from submitted import SlurmJob

ROWS = 600
SHARDS = {"rows_per_shard": 20}
SLOW = Speed(step_seconds=0.05)  # of four tasks: 600 rows take two or three seconds
MakeJob = Callable[..., SlurmJob]


def tables(job: SlurmJob) -> dict[str, pa.Table]:
    return {path.name: pq.read_table(path) for path in sorted(job.standing.store.glob("part-*.parquet"))}


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory, cluster: Cluster) -> dict[str, pa.Table]:
    """What one run gives, outside of Slurm."""
    from submitted import make_slurm_job

    job = make_slurm_job(tmp_path_factory.mktemp("single"), cluster, ROWS, Speed(), output=SHARDS)
    done = job.run()
    assert done.returncode == 0, done.stderr
    return tables(job)


@pytest.fixture
def job(make_job: MakeJob) -> SlurmJob:
    return make_job(ROWS, SLOW, output=SHARDS)


def check_equal(job: SlurmJob, single: dict[str, pa.Table]) -> None:
    assert job.standing.is_complete(), job.said()
    found = tables(job)
    assert found.keys() == single.keys()
    assert all(found[name].equals(single[name]) for name in single), "rows differ"


def kill(pids: list[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def test_an_array_of_four_gives_what_a_single_run_gives(
    job: SlurmJob, single: dict[str, pa.Table], cluster: Cluster
) -> None:
    array = job.submit(4)
    wait_for_rows(job.standing, 200)
    running = cluster.ask("squeue", "--noheader", "--array", "--format=%F_%K", "--states=RUNNING").split()
    assert set(running) <= {f"{array}_{task}" for task in range(4)} and len(running) >= 2
    status = json.loads(job.run("status", "--json").stdout)
    assert 0 < status["done"] < ROWS
    job.wait(array, "COMPLETED")
    check_equal(job, single)
    assert len(job.standing.generated()) == ROWS, "rows were generated twice"
    placed = job.placed()
    assert len({place["VLLM_CACHE_ROOT"] for place in placed.values()}) == len(placed), "tasks share a cache"
    assert {place["HF_HUB_OFFLINE"] for place in placed.values()} == {"1"}


def test_another_number_of_tasks_takes_what_is_missing(
    job: SlurmJob, single: dict[str, pa.Table], cluster: Cluster
) -> None:
    array = job.submit(4)
    wait_for_rows(job.standing, 250)
    cluster.ask("scancel", array)
    job.wait(array, "CANCELLED")
    job.wait(job.submit(3), "COMPLETED")
    check_equal(job, single)
    assert len(job.standing.generated()) <= ROWS + 4 * 8, "finished rows were generated again"


def test_lost_tasks_alone_are_submitted_again(job: SlurmJob, single: dict[str, pa.Table], cluster: Cluster) -> None:
    array = job.submit(4, "--set", "slurm.concurrency=2")
    wait_for_rows(job.standing, 40)
    cluster.ask("scancel", f"{array}_1", f"{array}_3")
    job.wait(array, "CANCELLED", "COMPLETED")
    assert not job.standing.is_complete()
    script = next((job.standing.store / ".run_batch").glob("submit-*.sh"))
    job.wait(cluster.ask("sbatch", "--parsable", "--array=1,3", str(script)), "COMPLETED")
    check_equal(job, single)


def test_processes_of_a_task_take_shares_and_gpus_of_their_own(
    make_job: MakeJob, single: dict[str, pa.Table], cluster: Cluster
) -> None:
    job = make_job(ROWS, SLOW, output=SHARDS, engine={"tensor_parallel_size": 2})
    options = ("--ntasks=3", "--nodes=1", "--gpus-per-node=8", "--cpus-per-task=2")
    array = job.submit(2, *(f"--sbatch-arg={option}" for option in options))
    job.wait(array, "COMPLETED")
    check_equal(job, single)
    placed = job.placed()
    found = {process: place["CUDA_VISIBLE_DEVICES"] for process, place in placed.items()}
    # One that finds nothing left to do starts no engine.
    assert found.items() <= {(a, p): f"{2 * int(p)},{2 * int(p) + 1}" for a in "01" for p in "012"}.items()
    assert len({place["VLLM_CACHE_ROOT"] for place in placed.values()}) == len(placed) >= 2, job.said()
    shares = {path.name for path in (job.standing.store / ".run_batch" / "shares").iterdir()}
    assert shares <= {f"{share}-of-6" for share in range(6)} and len(shares) >= 2


def test_a_task_runs_an_engine_on_each_of_its_gpus(
    make_job: MakeJob, single: dict[str, pa.Table], cluster: Cluster
) -> None:
    job = make_job(ROWS, Speed(step_seconds=0.1), output=SHARDS)
    array = job.submit(2, "--sbatch-arg=--ntasks=1", "--sbatch-arg=--gpus-per-task=4")
    wait_for_rows(job.standing, 40)
    cluster.ask("scancel", "--batch", "--signal=USR1", f"{array}_0")
    wait_until(lambda: cluster.facts(f"{array}_0")[0]["Restarts"] == "1", 30, job.said)
    assert job.said().count("interrupted; run the same command again") == 1, job.said()
    job.set_speed(Speed())
    job.wait(array, "COMPLETED")
    check_equal(job, single)
    lines = (job.standing.config.parent / "placed.jsonl").read_text().splitlines()
    found = [json.loads(line) for line in lines]
    for task in "01":
        devices = {place["CUDA_VISIBLE_DEVICES"] for place in found if place["SLURM_ARRAY_TASK_ID"] == task}
        assert len(devices) == 4 and not any("," in device for device in devices), devices
    assert len({place["VLLM_CACHE_ROOT"] for place in found}) >= 8, "engines share a cache"
    shares = {path.name for path in (job.standing.store / ".run_batch" / "shares").iterdir()}
    assert shares <= {f"{share}-of-8" for share in range(8)} and len(shares) >= 4


def test_the_notice_reaches_all_processes_of_a_task(
    make_job: MakeJob, single: dict[str, pa.Table], cluster: Cluster
) -> None:
    job = make_job(ROWS, Speed(step_seconds=0.2), output=SHARDS)
    array = job.submit(1, "--sbatch-arg=--ntasks=2")
    wait_for_rows(job.standing, 60)
    cluster.ask("scancel", "--batch", "--signal=USR1", array)
    wait_until(lambda: cluster.facts(array)[0]["Restarts"] == "1", 30, job.said)
    assert job.said().count("interrupted; run the same command again") == 2, job.said()
    job.set_speed(Speed())
    job.wait(array, "COMPLETED")
    check_equal(job, single)
    assert len(job.standing.generated()) <= ROWS + 2 * 8, "finished rows were generated again"


def test_tasks_of_a_dead_node_go_on_elsewhere(job: SlurmJob, single: dict[str, pa.Table], cluster: Cluster) -> None:
    array = job.submit(2, "--sbatch-arg=--cpus-per-task=40")  # one on each node
    wait_for_rows(job.standing, 100)
    cluster.kill("n1")
    while pids := cluster.processes("n1"):
        kill(pids)
    try:
        wait_until(lambda: any(fact["Restarts"] == "1" for fact in cluster.facts(array)), 60, job.said)
        job.wait(array, "COMPLETED")
        assert {fact["BatchHost"] for fact in cluster.facts(array)} == {"n0"}
    finally:
        cluster.start("n1")
    check_equal(job, single)
    assert len(job.standing.generated()) <= ROWS + 80, "more was generated again than can have been lost"


@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.long) for seed in range(2, 12))])
def test_nothing_that_happens_to_tasks_loses_or_doubles_a_row(
    make_job: MakeJob, single: dict[str, pa.Table], cluster: Cluster, seed: int
) -> None:
    job = make_job(ROWS, Speed(step_seconds=0.1), output=SHARDS)
    array = job.submit(4)
    chance = random.Random(seed)
    script = next((job.standing.store / ".run_batch").glob("submit-*.sh"))
    for number in itertools.count():
        facts = cluster.facts(array)
        if job.standing.is_complete() or number == 12:
            break
        running = [fact for fact in facts if fact["JobState"] == "RUNNING"]
        if running:
            _strike(job, array, chance.choice(running)["ArrayTaskId"], chance)
        elif all(fact["JobState"] in ("FAILED", "CANCELLED", "COMPLETED", "NODE_FAIL") for fact in facts):
            array = cluster.ask("sbatch", "--parsable", str(script))
        cluster.hurry(array)
        time.sleep(chance.uniform(0.5, 2))
    job.set_speed(Speed())
    states = ("FAILED", "CANCELLED", "COMPLETED")
    job.wait(array, *states, seconds=90)
    if not job.standing.is_complete():
        job.wait(cluster.ask("sbatch", "--parsable", str(script)), *states, seconds=90)
    check_equal(job, single)


def _strike(job: SlurmJob, array: str, task: str, chance: random.Random) -> None:
    cluster, name = job.cluster, f"{array}_{task}"
    blow = chance.choice(["requeue", "notice", "cancel", "kill", "slurmd"])
    with contextlib.suppress(Exception):  # it may have ended meanwhile
        if blow == "requeue":
            cluster.ask("scontrol", "requeue", name)
        elif blow == "notice":
            cluster.ask("scancel", "--batch", "--signal=USR1", name)
        elif blow == "cancel":
            cluster.ask("scancel", name)
        elif blow == "kill":
            kill(chance.choices(cluster.processes(chance.choice(NODES)), k=2))
        else:
            node = chance.choice(NODES)
            cluster.kill(node)
            cluster.start(node)
