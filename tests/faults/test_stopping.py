"""Signals, a second run, and rows that are generated again on request."""

import json
import os
import random
import re
import signal
import socket
import subprocess
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from stand_ins import Setting, Speed
from standing import StandingJob, kill_group, make_job, wait_for_rows

import jobs
from run_batch.jobs.job.config import load_config
from run_batch.jobs.watch.status import read_status

ROWS = 300
PROMPTS = [f"prompt {i}" for i in range(ROWS)]
TEXTS = [f"text of {prompt}" for prompt in PROMPTS]


@pytest.fixture
def job(tmp_path: Path) -> StandingJob:
    return make_job(tmp_path, PROMPTS, output={"rows_per_shard": 50})


def status(job: StandingJob) -> dict[str, object]:
    found = json.loads(read_status(load_config(job.config)).as_json())
    assert found["state"] != "running"
    return found


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_saves_every_finished_row_and_exits_with_75(job: StandingJob, number: signal.Signals) -> None:
    process = job.start()
    wait_for_rows(job, 120)
    os.kill(process.pid or 0, number)
    process.join(5)
    assert process.exitcode == 75 and "run the same command again" in job.said()
    generated = len(job.generated())
    found = status(job)
    assert generated - 8 <= int(str(found["done"])) <= generated, "status does not count the journal"
    code, said = job.run()
    assert code == 0 and job.table()["text"].to_pylist() == TEXTS
    assert len(job.generated()) <= ROWS + 8, "finished rows were generated again"
    assert f"this run: {ROWS - int(str(found['done']))} rows" in said
    left = {path.name for path in (job.store / ".run_batch").iterdir()}
    kept = {
        "job.json",
        "plan-1.json",
        "input-1.json",
        "summary.json",
        "progress.json",
        "commits.jsonl",
        "sketches.jsonl",
        "runs.jsonl",
        "end.json",
        "config.json",
        "journal",
        "claims",
    }
    assert left - {"metrics.jsonl"} == kept, "lease or note is left behind"
    assert not any((job.store / ".run_batch" / "claims").iterdir())


@pytest.mark.parametrize("seconds", [0.0, 0.3])
def test_a_signal_before_there_is_anything_to_save_exits_with_75_too(job: StandingJob, seconds: float) -> None:
    command = [str(jobs.COMMAND), "--config", str(job.config)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd="/")
    while not _handles(process.pid, signal.SIGTERM):  # until Python has loaded the command, the shell's own 143 stays
        assert process.poll() is None
        time.sleep(0.002)
    time.sleep(seconds)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=10)
    assert process.returncode == 75 and "Traceback" not in said, said
    assert not job.store.exists()


def _handles(pid: int, number: signal.Signals) -> bool:
    """Whether a process has a handler for a signal."""
    (caught,) = re.findall(r"SigCgt:\s*(\w+)", Path(f"/proc/{pid}/status").read_text())
    return bool(int(caught, 16) >> (number - 1) & 1)


def test_a_killed_run_leaves_its_rows_to_status_and_to_the_next_run(job: StandingJob) -> None:
    process = job.start()
    wait_for_rows(job, 130)
    kill_group(process)
    generated = len(job.generated())
    time.sleep(0.1)
    found = status(job)
    assert generated - 60 <= int(str(found["done"])) <= generated
    assert job.run()[0] == 0 and job.table()["text"].to_pylist() == TEXTS


def test_failed_rows_are_not_tried_again_after_a_kill(tmp_path: Path) -> None:
    # A row that kills the engine takes 8 restarts to find: it must be found once only.
    prompts = ["poison" if i == 20 else f"prompt {i}" for i in range(ROWS)]
    job = make_job(tmp_path, prompts, output={"rows_per_shard": ROWS})
    process = job.start()
    while "it is set aside" not in job.said():
        time.sleep(0.05)
    wait_for_rows(job, 150)
    time.sleep(0.3)
    kill_group(process)
    code, said = job.run()
    assert code == 0 and "the engine died" not in said
    assert job.table()["error"][20].as_py().startswith("engine_died: ")


def test_a_second_signal_ends_the_run_at_once(tmp_path: Path) -> None:
    job = make_job(tmp_path, PROMPTS, Speed(step_seconds=5))
    process = job.start()
    time.sleep(1.5)
    os.kill(process.pid or 0, signal.SIGINT)
    time.sleep(0.3)
    assert process.exitcode is None
    then = time.monotonic()
    os.kill(process.pid or 0, signal.SIGINT)
    process.join(5)
    assert process.exitcode == 75 and time.monotonic() - then < 1
    kill_group(process)


@pytest.mark.long
def test_a_signal_ends_a_run_whose_engine_hangs_within_30_seconds(tmp_path: Path) -> None:
    job = make_job(tmp_path, ["hang" if i == 100 else prompt for i, prompt in enumerate(PROMPTS)])
    process = job.start()
    wait_for_rows(job, 60)
    time.sleep(2)
    generated = len(job.generated())
    then = time.monotonic()
    os.kill(process.pid or 0, signal.SIGTERM)
    process.join(35)
    assert process.exitcode == 75 and time.monotonic() - then < 30 and "did not answer" in job.said()
    assert status(job)["done"] == generated
    kill_group(process)


def test_a_closed_terminal_does_not_stop_a_job_under_nohup(job: StandingJob) -> None:
    job.setting = Setting(hangup_ignored=True)
    process = job.start()
    wait_for_rows(job, 50)
    os.killpg(process.pid or 0, signal.SIGHUP)
    process.join(30)
    assert process.exitcode == 0 and job.table()["text"].to_pylist() == TEXTS


def test_a_second_run_says_who_holds_the_folder_and_leaves(job: StandingJob) -> None:
    process = job.start()
    wait_for_rows(job, 20)
    code, said = job.run()
    assert code == 1 and f"in use by another run: host {socket.gethostname()}, process {process.pid}, since 20" in said
    assert process.exitcode is None
    process.join(30)
    assert process.exitcode == 0 and job.table()["text"].to_pylist() == TEXTS
    assert sorted(job.generated()) == list(range(ROWS))


def test_a_killed_run_is_taken_over_at_once(job: StandingJob) -> None:
    process = job.start()
    wait_for_rows(job, 20)
    kill_group(process)
    code, said = job.run()
    assert code == 0 and f"taking over from a run that has died (host {socket.gethostname()}, process" in said


def failing(tmp_path: Path, **tables: object) -> StandingJob:
    """A complete job of 6 shards, with rows in two of them that killed the engine, and one that is bad."""
    prompts = list(PROMPTS)
    prompts[60], prompts[61], prompts[250], prompts[251] = "poison a", "bad", "poison b", "poison c"
    job = make_job(tmp_path, prompts, Speed(step_seconds=0.002), output={"rows_per_shard": 50, "columns": ["prompt"]})
    assert job.run()[0] == 0
    assert job.table()["error"].null_count == ROWS - 4
    return job


def test_only_failed_rows_are_generated_again_on_request(tmp_path: Path) -> None:
    job = failing(tmp_path)
    before = {path.name: path.stat().st_mtime_ns for path in jobs.shards(job.config)}
    rows, generated = job.table().to_pylist(), len(job.generated())
    job.setting, job.speed = Setting(retry_failed=True), Speed(tame=True)
    code, said = job.run()
    assert code == 0 and "300 of 300 rows done, 1 failed; this run: 4 rows" in said, said
    assert sorted(job.generated()[generated:]) == [60, 250, 251]
    after = job.table().to_pylist()
    for i, (old, new) in enumerate(zip(rows, after, strict=True)):
        if i in (60, 250, 251):
            assert new["text"] == f"text of {new['prompt']}" and new["error"] is None
        else:
            assert old == new
    changed = {path.name for path in jobs.shards(job.config) if path.stat().st_mtime_ns != before[path.name]}
    assert changed == {"part-000001.parquet", "part-000005.parquet"}
    code, said = job.run()
    assert code == 0 and "this run: 1 rows" in said, "the bad row is tried each time"


def test_a_retry_that_is_killed_goes_on_and_takes_nothing_old_for_new(tmp_path: Path) -> None:
    job = failing(tmp_path)
    journal = job.store / ".run_batch" / "journal"
    dice = random.Random(1)
    job.setting, job.speed = Setting(retry_failed=True), Speed(tame=True, step_seconds=0.1)
    for _ in range(3):
        process = job.start()
        time.sleep(dice.uniform(0.2, 0.5))
        kill_group(process)
        assert len(job.table()) == ROWS
    code, said = job.run()
    assert code == 0, said
    errors = job.table()["error"].to_pylist()
    assert [i for i, error in enumerate(errors) if error is not None] == [61]
    assert list(journal.iterdir()) == []
    commit = json.loads(pq.read_metadata(jobs.shards(job.config)[5]).metadata[b"run_batch.commit"])
    assert (commit["attempt"], commit["errors"]) == (1, {})


def test_a_run_that_has_nothing_to_do_leaves_a_retry_alone(tmp_path: Path) -> None:
    job = failing(tmp_path)
    generated = len(job.generated())
    job.setting, job.speed = Setting(retry_failed=True), Speed(tame=True, step_seconds=0.3)
    process = job.start()
    wait_for_rows(job, generated + 1)
    time.sleep(0.2)
    journal = list((job.store / ".run_batch" / "journal").iterdir())
    job.setting = Setting()
    assert job.run()[0] == 0
    assert list((job.store / ".run_batch" / "journal").iterdir()) == journal != []
    process.join(30)
    assert process.exitcode == 0


def test_failed_rows_of_an_unfinished_job_wait_for_its_end(job: StandingJob) -> None:
    job.setting = Setting(retry_failed=True)
    code, said = job.run()
    assert code == 2 and "--retry-failed needs a complete job" in said and not job.store.exists()
    job.setting = Setting()
    assert job.run()[0] == 0
    job.setting = Setting(retry_failed=True)
    code, said = job.run()
    assert code == 0 and "no row has failed" in said


def test_a_bug_of_run_batch_stops_the_run_and_fails_no_row(tmp_path: Path) -> None:
    job = make_job(tmp_path, ["bug" if i == 100 else prompt for i, prompt in enumerate(PROMPTS)])
    code, said = job.run()
    assert code == 1 and "this is a bug in run-batch; please report it" in said and "Traceback" in said
    assert not job.is_complete() and b"engine_died" not in b"".join(
        path.read_bytes() for path in (job.store / ".run_batch" / "journal").iterdir()
    )
    found = status(job)
    assert int(str(found["done"])) > 50 and found["failed"] == 0
