"""Several jobs, one folder: it belongs to the first of them, and to another one where nothing of the first is left.
A folder whose shards are lost or damaged is not complete any more.
"""

import json
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from stand_ins import Setting, Speed
from standing import StandingJob, kill_group, make_job

import jobs
from run_batch.jobs.job.config import load_config
from run_batch.jobs.watch.status import read_status

LOADS = Setting(load_seconds=2.0)


def damage(shard: Path) -> None:
    content = bytearray(shard.read_bytes())
    content[content.find(b"text of p")] ^= 0xFF
    shard.write_bytes(content)


def truncate(shard: Path) -> None:
    os.truncate(shard, shard.stat().st_size // 2)


@pytest.mark.parametrize("harm", [Path.unlink, truncate, damage])
@pytest.mark.parametrize("shares", [1, 2])
def test_a_shard_that_is_lost_or_damaged_is_told_and_made_again(
    tmp_path: Path, harm: Callable[[Path], None], shares: int
) -> None:
    job, _ = two_jobs(tmp_path)
    assert [job.share(index, shares).run()[0] for index in range(shares)] == [0] * shares
    config, expected = load_config(job.config), job.table()
    found = read_status(config, verify=True)
    assert (found.state, found.missing, found.damaged) == ("complete", [], {})
    summary = (job.store / ".run_batch" / "summary.json").read_bytes()
    harm(job.store / "part-000002.parquet")

    found = read_status(config, verify=True)
    assert (found.state, found.done, found.left) == ("stopped", 30, 10)
    assert [*found.missing, *found.damaged] == ["part-000002.parquet"]
    said = jobs.run(job.config, "--verify", command="status")
    assert said.returncode == 1 and "part-000002.parquet is " in said.stdout

    job.log.unlink()
    runs = [job.share(index, shares).run() for index in range(shares)]
    assert [code for code, _ in runs] == [0] * shares
    said_by_runs = "".join(said for _, said in runs)
    assert "part-000002.parquet" in said_by_runs and "made again" in said_by_runs
    assert sorted(job.generated()) == list(range(20, 30)) and job.table() == expected
    assert job.is_complete() and read_status(config, verify=True).state == "complete"
    assert (job.store / ".run_batch" / "summary.json").read_bytes() != summary, "it tells of the shards before"
    assert (job.store / ".run_batch" / "damaged" / "part-000002.parquet").exists() == (harm is not Path.unlink)


def test_failed_rows_are_not_retried_while_a_shard_is_damaged(tmp_path: Path) -> None:
    job = make_job(tmp_path, ["bad"] * 5 + ["p"] * 35, output={"rows_per_shard": 10})
    assert job.run()[0] == 0
    damage(job.store / "part-000002.parquet")
    code, said = replace(job, setting=Setting(retry_failed=True)).run()
    assert code == 2 and "without it first" in said and "part-000002.parquet is damaged" in said


def two_jobs(folder: Path) -> tuple[StandingJob, StandingJob]:
    """Two jobs over the same rows and in the same folder, which differ in their sampling settings."""
    first = make_job(folder, [f"p{i}" for i in range(40)], Speed(step_seconds=0.001), output={"rows_per_shard": 10})
    text = first.config.read_text()
    second = folder / "second" / "job.toml"
    second.parent.mkdir()
    text = text.replace('"rows.parquet"', f'"{folder}/rows.parquet"').replace('"out"', f'"{folder}/out"')
    second.write_text(text.replace("temperature = 0.0", "temperature = 1.5"))
    return first, StandingJob(second, first.speed)


def recorded(job: StandingJob) -> object:
    return json.loads((job.store / ".run_batch" / "job.json").read_text())["identity"]["sampling.temperature"]


def wait_for_record(job: StandingJob) -> None:
    deadline = time.monotonic() + 30
    while not (job.store / ".run_batch" / "job.json").exists():
        assert time.monotonic() < deadline, job.said()
        time.sleep(0.01)


def test_a_job_that_is_started_while_the_engine_of_another_one_loads_is_refused(tmp_path: Path) -> None:
    first, second = two_jobs(tmp_path)
    process = replace(first, setting=LOADS).share(0, 2).start()
    wait_for_record(first)
    code, said = second.share(1, 2).run()
    assert code == 2 and "sampling.temperature: 0.0 -> 1.5" in said
    process.join(60)
    assert process.exitcode == 0 and recorded(first) == 0.0
    assert first.share(1, 2).run()[0] == 0 and first.is_complete()


def test_of_two_jobs_that_are_started_at_once_one_goes_on(tmp_path: Path) -> None:
    both = [replace(job, setting=LOADS).share(i, 2) for i, job in enumerate(two_jobs(tmp_path))]
    processes = [job.start() for job in both]
    for process in processes:
        process.join(60)
    assert sorted(process.exitcode for process in processes) == [0, 2]
    assert sorted(len(job.generated()) for job in both) == [0, 20]


def test_a_job_that_was_killed_before_its_first_row_leaves_the_folder_to_the_corrected_one(tmp_path: Path) -> None:
    first, second = two_jobs(tmp_path)
    process = replace(first, setting=Setting(load_seconds=60)).start()
    wait_for_record(first)
    kill_group(process)
    (tmp_path / "out" / ".run_batch" / "running-all").write_bytes((8).to_bytes(8, "little"))
    # All shares of the corrected job at once: one of them takes the folder over, for all.
    processes = [replace(second, setting=LOADS).share(index, 4).start() for index in range(4)]
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * 4, second.said()
    assert recorded(first) == 1.5 and (tmp_path / "out" / "_SUCCESS").exists()
    assert not (tmp_path / "out" / ".run_batch" / "running-all").exists()


def test_a_job_that_has_finished_a_row_keeps_its_folder(tmp_path: Path) -> None:
    first, second = two_jobs(tmp_path)
    first = replace(first, speed=Speed(max_num_seqs=1, step_seconds=0.1))
    process = first.start()
    deadline = time.monotonic() + 30
    while not list((tmp_path / "out" / ".run_batch").glob("journal/*")):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    kill_group(process)
    code, said = second.run()
    assert code == 2 and "holds the results of another job" in said
    assert jobs.run(second.config, command="status").returncode == 0 and recorded(first) == 0.0
