"""What never answers: a row that is mapped for ever, an engine that does not start, storage that stalls."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from stand_ins import Setting, Speed
from standing import StandingJob, children, kill_group, make_job, wait_for_rows

from run_batch.jobs.job.config import load_config
from run_batch.jobs.watch.status import read_status

ROWS = 200
# The first row of a batch, one in the middle, and the last one, behind which no other shows that mapping works.
PLACES = (32, 53, ROWS - 1)


def prompts(rows: int = ROWS, **special: str) -> list[str]:
    found = [f"prompt {i}" for i in range(rows)]
    for row, prompt in special.items():
        found[int(row[1:])] = prompt
    return found


def check_all_but(job: StandingJob, bad: dict[int, str]) -> None:
    """Each row is there once, and has its text, or the error that is expected."""
    rows = job.table().to_pylist()
    assert [row["row_id"] for row in rows] == [f"u{i:06d}" for i in range(len(rows))]
    assert {i: row["error"] for i, row in enumerate(rows) if row["error"] is not None} == bad
    assert all(row["text"] == f"text of prompt {i}" for i, row in enumerate(rows) if i not in bad)


@pytest.mark.parametrize("place", PLACES)
def test_a_row_whose_mapping_never_returns_fails_and_all_others_are_there(tmp_path: Path, place: int) -> None:
    stuck = f"stuck 100 {tmp_path / 'hangs'}"
    job = make_job(tmp_path, prompts(**{f"r{place}": stuck}), errors={"mapping_seconds": 0.4})
    code, said = job.run(30)
    assert code == 0, said
    check_all_but(job, {place: "mapping_timeout: mapping the row takes longer than 0.4 s (errors.mapping_seconds)"})
    assert (tmp_path / "hangs").stat().st_size == 2, "once with its batch, once alone"


def test_a_row_that_hangs_once_is_mapped_again(tmp_path: Path) -> None:
    stuck = f"stuck 1 {tmp_path / 'hangs'}"
    job = make_job(tmp_path, prompts(r53=stuck), errors={"mapping_seconds": 0.4})
    assert job.run(30)[0] == 0
    assert job.table()["text"].to_pylist() == [f"text of {p}" for p in prompts(r53=stuck)]


def test_a_worker_that_hangs_ends_with_the_run_that_is_killed(tmp_path: Path) -> None:
    job = make_job(tmp_path, prompts(r53=f"stuck 1 {tmp_path / 'hangs'}"))
    process = job.start()
    wait_until(job, (tmp_path / "hangs").exists)
    workers = [psutil.Process(pid) for pid in children(process.pid or 0)]
    os.kill(process.pid or 0, signal.SIGKILL)
    gone, alive = psutil.wait_procs(workers, 10)
    assert gone and not alive
    kill_group(process)


@pytest.mark.parametrize("load_seconds", [0.0, 1000.0])
def test_mapping_that_hangs_for_every_row_ends_the_run_and_fails_none(tmp_path: Path, load_seconds: float) -> None:
    """Also while the engine still starts."""
    errors = {"mapping_seconds": 0.1, "step_seconds": 0.5}
    job = make_job(tmp_path, [f"stuck 1000 {tmp_path / 'hangs'}"] * ROWS, errors=errors)
    job.setting = Setting(load_seconds=load_seconds)
    code, said = job.run(60)
    assert code == 2 and "8 rows in succession hang while they are mapped" in said and "Traceback" not in said, said
    assert "errors.mapping_seconds" in said and not list(job.store.glob("part-*"))
    assert ("still starting" in said) == bool(load_seconds)


def test_an_engine_that_does_not_start_ends_the_run(tmp_path: Path) -> None:
    job = make_job(tmp_path, prompts(), errors={"start_seconds": 1.0})
    job.setting = Setting(load_seconds=1000)
    process = job.start()
    wait_until(job, (job.store / ".run_batch" / "lease-all.1").exists)
    assert read_status(load_config(job.config)).state == "loading"
    process.join(20)
    assert process.exitcode == 1 and "the engine has not started within 1 s (errors.start_seconds)" in job.said()
    job.setting = Setting()
    assert job.run()[0] == 0
    check_all_but(job, {})


def test_storage_that_stalls_for_a_while_loses_nothing_and_the_run_waits_for_it(tmp_path: Path) -> None:
    job = make_job(tmp_path, prompts(1000), Speed(step_seconds=0.01), errors={"storage_seconds": 3.0})
    job.setting = Setting(stalled_seconds=2.5)
    process = job.start()
    wait_for(job, "the storage has not answered")
    generated = len(job.generated())
    wait_for(job, "the storage answers again")
    assert len(job.generated()) - generated <= 16, "rows are taken while the storage has stalled"
    process.join(30)
    assert process.exitcode == 0, job.said()
    check_all_but(job, {})
    assert len(job.generated()) == 1000


@pytest.mark.parametrize("rows_per_shard", [50, 1000])
def test_storage_that_never_answers_ends_the_run_and_the_next_one_completes_it(
    tmp_path: Path, rows_per_shard: int
) -> None:
    output = {"rows_per_shard": rows_per_shard}
    job = make_job(tmp_path, prompts(), Speed(step_seconds=0.01), output=output, errors={"storage_seconds": 1.0})
    job.setting = Setting(stalled_seconds=10_000)
    code, said = job.run(30)
    assert code == 1 and "errors.storage_seconds" in said and str(job.store) in said, said
    job.setting = Setting()
    assert job.run()[0] == 0
    check_all_but(job, {})


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_run_whose_storage_hangs(tmp_path: Path, number: int) -> None:
    job = make_job(tmp_path, prompts())
    job.setting = Setting(stalled_seconds=10_000)
    process = job.start()
    wait_for_rows(job, ROWS)
    os.kill(process.pid or 0, number)
    time.sleep(2.1)  # a second signal that comes sooner is taken for the first
    os.kill(process.pid or 0, number)
    process.join(10)
    assert process.exitcode == 75
    kill_group(process)


def wait_for(job: StandingJob, said: str) -> None:
    wait_until(job, lambda: said in job.said())


def wait_until(job: StandingJob, condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, job.said()
        time.sleep(0.01)
