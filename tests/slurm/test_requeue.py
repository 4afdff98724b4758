"""A submitted job on a real Slurm: its options, and all that Slurm does to a task on its way."""

import json
import signal
from collections.abc import Callable
from datetime import datetime

import pytest
from cluster import Cluster, wait_until
from stand_ins import Speed
from standing import wait_for_rows
from submitted import SlurmJob

ROWS = 400
SHARDS = {"rows_per_shard": 50}
SLOW = Speed(step_seconds=0.03)  # 400 rows take four seconds
TEXTS = [f"text of prompt {i}" for i in range(ROWS)]
MakeJob = Callable[..., SlurmJob]


@pytest.fixture
def job(make_job: MakeJob) -> SlurmJob:
    return make_job(ROWS, SLOW, output=SHARDS)


def fact(job: SlurmJob, array: str, name: str) -> str:
    return job.cluster.facts(array)[0][name]


def check_complete(job: SlurmJob, repeated: int) -> None:
    """Every row is there once; `repeated` of them at most were generated again."""
    assert job.texts == TEXTS and job.standing.is_complete(), job.said()
    assert len(job.standing.generated()) <= ROWS + repeated, "finished rows were generated again"


def test_a_submitted_job_runs_to_its_end(job: SlurmJob, cluster: Cluster) -> None:
    array = job.submit(1)
    assert array.isdigit()
    job.wait(array, "COMPLETED")
    check_complete(job, 0)
    again = job.run("submit", "--tasks", "1")
    assert (again.returncode, again.stdout) == (0, "") and "nothing submitted" in again.stderr


def test_options_reach_slurm_as_they_are_written(make_job: MakeJob, cluster: Cluster) -> None:
    comment = 'it\'s "10" % of $HOME; `touch x` \\ #SBATCH --wrap'
    slurm = {"time": "1-02:03", "cpus-per-task": 3, "gres": "gpu:a:2", "comment": comment, "hold": True}
    job = make_job(10, slurm={**slurm, "gres": "gpu:2", "concurrency": 2, "setup": ["export GREETING='a b'"]})
    array = job.submit(5, "--sbatch-arg=--partition=urgent", "--sbatch-arg=--job-name=a b")
    shown = cluster.ask("scontrol", "--oneliner", "show", "job", array)
    for expected in (
        f"Comment={comment} ",
        "TimeLimit=1-02:03:00",
        "CPUs/Task=3",
        "gres:gpu:2",
        "JobName=a b ",
        "Partition=urgent",
        "ArrayTaskId=0-4%2",
        "Requeue=1",
    ):
        assert expected in shown
    assert "Command=" + str(next((job.standing.store / ".run_batch").glob("submit-*.sh"))) in shown
    status = json.loads(job.run("status", "--json").stdout)
    assert (status["state"], status["rows"], status["left"]) == ("not started", 10, 10), "before any task has begun"


def test_what_slurm_does_not_know_is_said_at_once(job: SlurmJob, cluster: Cluster) -> None:
    refused = job.run("submit", "--tasks", "1", "--sbatch-arg=--partition=nowhere")
    assert refused.returncode == 2 and "invalid partition specified: nowhere" in refused.stderr
    refused = job.run("submit", "--tasks", "1", PATH="/bin/nowhere")
    assert refused.returncode == 1 and "sbatch is not on PATH" in refused.stderr
    typo = job.run("submit", "--tasks", "1", "--set", "slurm.partiton=main")
    assert typo.returncode == 2 and "unknown key slurm.partiton; did you mean slurm.partition?" in typo.stderr
    assert cluster.ask("squeue", "--noheader") == ""


def test_the_notice_before_the_time_limit_saves_and_requeues(make_job: MakeJob, cluster: Cluster) -> None:
    # slurmctld looks at time limits every half a minute: where that is at once, the notice comes before a row is done.
    job = make_job(ROWS, Speed(step_seconds=0.5), output=SHARDS)
    array = job.submit(1, "--sbatch-arg=--time=1", "--sbatch-arg=--signal=B:USR1@58")
    wait_until(lambda: fact(job, array, "Restarts") == "1", 60, job.said)
    assert fact(job, array, "JobState") in ("PENDING", "COMPLETING")
    assert "interrupted; run the same" in job.said() or not job.standing.generated()
    job.set_speed(Speed())
    job.wait(array, "COMPLETED")
    check_complete(job, 8)


def test_a_task_whose_storage_fails_is_requeued_after_a_longer_pause_within_the_same_bound(
    make_job: MakeJob, cluster: Cluster
) -> None:
    job = make_job(ROWS, output=SHARDS)
    stale = job.standing.config.with_name("stale")
    stale.touch()
    array = job.submit(1, "--set", "slurm.max-requeues=2")
    wait_until(lambda: fact(job, array, "Restarts") == "1", 60, job.said)
    wait_until(lambda: fact(job, array, "JobState") == "PENDING", 60, job.said)
    starts = datetime.fromisoformat(fact(job, array, "StartTime"))
    assert (starts - datetime.now()).total_seconds() > 500, "it would fail again at once"
    assert "Stale file handle" in job.said() and "Traceback" not in job.said(), job.said()
    # hurried by `wait`
    job.wait(array, "FAILED")
    assert fact(job, array, "ExitCode") == "74:0" and fact(job, array, "Restarts") == "2"
    stale.unlink()
    script = next((job.standing.store / ".run_batch").glob("submit-*.sh"))
    job.wait(cluster.ask("sbatch", "--parsable", str(script)), "COMPLETED")
    check_complete(job, 0)


def test_a_task_is_not_requeued_for_ever(job: SlurmJob, cluster: Cluster) -> None:
    array = job.submit(1, "--set", "slurm.max-requeues=1")
    wait_for_rows(job.standing, 20)
    cluster.ask("scancel", "--batch", "--signal=USR1", array)
    wait_until(lambda: fact(job, array, "Restarts") == "1", 30, job.said)
    job.wait(array, "RUNNING")
    wait_for_rows(job.standing, len(job.standing.generated()) + 20)
    cluster.ask("scancel", "--batch", "--signal=USR1", array)
    job.wait(array, "FAILED")
    assert fact(job, array, "ExitCode") == "75:0"
    assert "was restarted 1 times (slurm.max-requeues); it is not requeued" in job.said()


def test_other_failures_are_not_requeued(make_job: MakeJob, cluster: Cluster) -> None:
    job = make_job(20, errors={"expected_column": "prompt", "max_fraction": 0.0})
    array = job.submit(1)
    job.wait(array, "FAILED")
    assert (fact(job, array, "ExitCode"), fact(job, array, "Restarts")) == ("3:0", "0")


def test_a_cancelled_task_stays_cancelled_and_loses_nothing(job: SlurmJob, cluster: Cluster) -> None:
    array = job.submit(1)
    wait_for_rows(job.standing, 100)
    cluster.ask("scancel", array)
    job.wait(array, "CANCELLED")
    assert "interrupted; run the same" in job.said()
    # The script needs no run-batch submit to be submitted again.
    script = next((job.standing.store / ".run_batch").glob("submit-*.sh"))
    array = cluster.ask("sbatch", "--parsable", str(script))
    job.wait(array, "COMPLETED")
    check_complete(job, 8)


def test_a_task_requeued_by_hand_goes_on(job: SlurmJob, cluster: Cluster) -> None:
    array = job.submit(1)
    wait_for_rows(job.standing, 100)
    cluster.ask("scontrol", "requeue", f"{array}_0")
    job.wait(array, "COMPLETED")
    assert fact(job, array, "Restarts") == "1"
    check_complete(job, 8)


def test_a_preempted_task_comes_back(job: SlurmJob, cluster: Cluster) -> None:
    array = job.submit(1, "--sbatch-arg=--nodelist=n0", "--sbatch-arg=--exclusive")
    wait_for_rows(job.standing, 100)
    urgent = ["sbatch", "--parsable", "--partition=urgent", "--nodelist=n0", "--exclusive", "--output=/dev/null"]
    other = cluster.ask(*urgent, "--wrap=sleep 1")
    cluster.wait(other, "COMPLETED")
    job.wait(array, "COMPLETED")
    assert fact(job, array, "Restarts") == "1"
    check_complete(job, 8)


def test_a_job_outlives_the_daemons_of_slurm(job: SlurmJob, cluster: Cluster) -> None:
    array = job.submit(1, "--sbatch-arg=--nodelist=n1")
    wait_for_rows(job.standing, 50)
    # slurmctld keeps its state when it is told to end; killed, it may forget a job of the last seconds.
    for daemon, number in {"n1": signal.SIGKILL, "slurmctld": signal.SIGTERM}.items():
        cluster.kill(daemon, number)
        cluster.start(daemon)
    job.wait(array, "COMPLETED")
    assert fact(job, array, "Restarts") == "0"
    check_complete(job, 0)
