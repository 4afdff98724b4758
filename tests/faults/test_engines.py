"""Several engines of one machine as one run: one summary, one exit code, and the rows of a single engine."""

import json
import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest
from running_engines import (
    BRISK,
    ROWS,
    SLOW,
    TWO,
    all_of,
    leases,
    make,
    prompts,
    texts,
    wait_for_engines,
    wait_until_gone,
)
from stand_ins import Setting, Speed
from standing import make_job, wait_for_rows

from run_batch.jobs.job.config import load_config
from run_batch.jobs.watch.status import read_status


def test_two_engines_are_one_run_with_the_results_of_one(tmp_path: Path) -> None:
    job = make(tmp_path)
    code, said = job.run()
    assert code == 0 and job.table()["text"].to_pylist() == texts(ROWS)
    failed = prompts(ROWS).count("bad")
    assert said.count(" rows done, ") == 1
    assert f"{ROWS} of {ROWS} rows done, {failed} failed; this run: {ROWS} rows" in said, said
    assert len(job.generated()) == len(set(job.generated())) == ROWS - failed
    assert job.is_complete() and not leases(job)
    assert not any((job.store / ".run_batch" / "journal").iterdir())
    found = json.loads(read_status(load_config(job.config)).as_json())
    assert (found["state"], found["done"], found["failed"]) == ("complete", ROWS, failed)
    assert [share["share"] for share in found["shares"]] == ["0-of-2", "1-of-2"]


def test_a_job_of_two_engines_that_grows_generates_no_row_again(tmp_path: Path) -> None:
    """From a limit within a shard to all rows: what is new is divided among the engines."""
    limit = ROWS // 2 + 5
    job = make(tmp_path, input={"image_column": "", "limit": limit})
    code, said = job.run()
    assert code == 0 and f"{limit} of {limit} rows done" in said and job.is_complete(), said
    job.config.write_text(job.config.read_text().replace(f"limit = {limit}\n", ""))
    code, said = job.run()
    assert code == 0 and f"{ROWS} of {ROWS} rows done" in said and f"this run: {ROWS - limit} rows" in said, said
    assert job.table()["text"].to_pylist() == texts(ROWS) and job.is_complete()
    assert len(job.generated()) == len(set(job.generated())) == ROWS - prompts(ROWS).count("bad")
    assert not leases(job)


def test_each_engine_has_cores_of_its_own_and_ends_with_the_run(tmp_path: Path) -> None:
    job = make(tmp_path, BRISK)
    process = job.start()
    wait_for_rows(job, 20)
    everything = all_of(process)
    cores = [set(engine.cpu_affinity()) for engine in wait_for_engines(process, 2)]
    usable = os.sched_getaffinity(0)
    assert cores[0] | cores[1] == usable and (len(usable) < 2 or not cores[0] & cores[1])
    process.join(60)
    assert process.exitcode == 0
    wait_until_gone(everything)


def test_ctrl_c_is_one_interruption_and_the_same_command_goes_on(tmp_path: Path) -> None:
    job = make(tmp_path, BRISK)
    process = job.start()
    wait_for_rows(job, 60)
    everything = all_of(process)
    os.kill(process.pid or 0, signal.SIGINT)
    process.join(10)
    assert process.exitcode == 75 and job.said().count("run the same command again") == 1, job.said()
    wait_until_gone(everything)
    generated = len(job.generated())
    done = read_status(load_config(job.config)).done
    assert generated - 2 * 8 <= done - prompts(ROWS)[:done].count("bad") <= generated + 8
    code, said = replace(job, speed=Speed()).run()
    assert code == 0 and job.table()["text"].to_pylist() == texts(ROWS)
    assert f"this run: {ROWS - done} rows" in said, said
    assert len(job.generated()) - len(set(job.generated())) <= 2 * 8, "finished rows were generated again"


def test_a_second_interruption_ends_all_at_once(tmp_path: Path) -> None:
    job = make(tmp_path, Speed(step_seconds=1.5))
    process = job.start()
    wait_for_engines(process, 2)
    wait_for_rows(job, 1)
    everything = all_of(process)
    for _ in range(2):
        os.kill(process.pid or 0, signal.SIGINT)
        time.sleep(0.1)
    process.join(2)
    assert process.exitcode == 75
    wait_until_gone(everything)


def test_a_second_run_with_engines_is_refused_while_the_first_one_runs(tmp_path: Path) -> None:
    job = make(tmp_path, BRISK)
    process = job.start()
    wait_for_rows(job, 20)
    code, said = job.run()
    assert code == 1 and "is in use by another run" in said and f"process {process.pid}" in said
    process.join(60)
    assert process.exitcode == 0 and job.table()["text"].to_pylist() == texts(ROWS)


@pytest.mark.parametrize("how", ["load", "die"])
def test_a_broken_gpu_costs_no_row_and_is_named(tmp_path: Path, how: str) -> None:
    job = make(tmp_path, SLOW)
    job.setting = replace(TWO, broken_gpu=("GPU-b", how))
    code, said = job.run()
    assert code == 0 and job.table()["text"].to_pylist() == texts(ROWS), said
    assert said.count("engine 1 (GPU GPU-b) has died") == 2 and "It is started again" in said
    assert said.count("engine 1 (GPU GPU-b) is given up after 3 deaths") == 1, said
    if how == "load":
        assert "uncorrectable ECC error" in said
        # The other engine has taken the rows while it ran, before it was done.
        assert not (job.store / ".run_batch" / "shares" / "1-of-2" / "commits.jsonl").exists()
    assert job.is_complete() and not leases(job)
    assert not any((job.store / ".run_batch" / "journal").iterdir())
    assert not list((job.store / ".run_batch").glob("claims/*"))


def test_what_a_broken_gpu_leaves_at_the_end_is_done_by_an_engine_that_works(tmp_path: Path) -> None:
    # The engine that works is done before the other one is given up: in a retry, none takes rows from another.
    job = make(tmp_path)
    job.setting = replace(TWO, broken_gpu=("0", "load"), retry_failed=True)
    whole = replace(job, setting=replace(TWO))
    assert whole.run()[0] == 0
    before = job.table()["error"].to_pylist()
    code, said = job.run()
    assert code == 0 and "engine 0 (GPU 0) is given up" in said, said
    assert job.table()["error"].to_pylist() == before and f"this run: {ROWS - before.count(None)} rows" in said


def test_a_model_that_no_engine_can_load_ends_the_run_at_once(tmp_path: Path) -> None:
    job = make(tmp_path)
    job.setting = replace(TWO, gpus=("3", "4"), broken_gpu=("*", "load"))
    code, said = job.run()
    assert code == 1 and "none of 2 engines works" in said and "ECC" in said
    assert said.count("It is started again") <= 1 and not job.store.exists()


def test_engines_that_cannot_read_their_images_are_not_started_again(tmp_path: Path) -> None:
    job = make(tmp_path, errors={"min_rows": 20, "max_fraction": 0.1})
    job.setting = replace(TWO, lost_images=tmp_path / "lost.log")
    code, said = job.run()
    assert code == 1 and said.count("This run stops and records none of them") == 2, said
    assert "started again" not in said and "30 shards are left" in said
    assert replace(job, setting=TWO).run()[0] == 0 and job.table()["text"].to_pylist() == texts(ROWS)


def test_a_bad_job_is_told_once_and_leaves_nothing(tmp_path: Path) -> None:
    job = make(tmp_path)
    job.setting = replace(TWO, broken_gpu=("*", "refuse"))
    code, said = job.run()
    assert code == 2 and said.count("engine.dtype is wrong") == 1, said
    assert not job.store.exists()


def test_failures_are_judged_over_the_whole_job(tmp_path: Path) -> None:
    rows = ["bad"] * 15 + ["p"] * 85
    for most, expected in ((0.2, 0), (0.1, 3)):
        job = make_job(tmp_path / str(most), rows, output={"rows_per_shard": 10}, errors={"max_fraction": most})
        job.setting = TWO
        code, said = job.run()
        assert code == expected, said
        assert said.count("15 of 100 rows failed") == said.count(" rows failed") == (code == 3), said
        assert "started again" not in said


def test_no_more_engines_than_shards_are_started(tmp_path: Path) -> None:
    job = make(tmp_path, output={"rows_per_shard": 100})
    job.setting = Setting(gpus=tuple("01234567"))
    code, said = job.run()
    assert code == 0 and job.table()["text"].to_pylist() == texts(ROWS)
    shares = {path.name for path in (job.store / ".run_batch" / "shares").iterdir()}
    assert shares == {f"{index}-of-3" for index in range(3)}
    code, said = job.run()
    assert code == 0 and f"all {ROWS} rows are done already" in said


def test_another_number_of_engines_goes_on_with_the_job(tmp_path: Path) -> None:
    job = make(tmp_path, BRISK)
    for gpus in (("0", "1", "2"), ("0",), ("0", "1")):
        job.setting = replace(TWO, gpus=gpus)
        process = job.start()
        wait_for_rows(job, len(job.generated()) + 40)
        os.kill(process.pid or 0, signal.SIGTERM)
        process.join(20)
        assert process.exitcode == 75, job.said()
    assert replace(job, speed=Speed()).run()[0] == 0
    assert job.table()["text"].to_pylist() == texts(ROWS)
    assert len(job.generated()) - len(set(job.generated())) <= 3 * 3 * 8


def test_several_tasks_of_several_engines_each_are_one_job(tmp_path: Path) -> None:
    job = make(tmp_path, BRISK)
    processes = [job.share(index, 2).start() for index in range(2)]
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0], job.said()
    assert job.is_complete() and job.table()["text"].to_pylist() == texts(ROWS)
    shares = {path.name for path in (job.store / ".run_batch" / "shares").iterdir()}
    assert shares == {f"{index}-of-4" for index in range(4)}
    assert job.said().count(" rows done, ") == 2
