"""A job that gets more rows, or moves, goes on with what is there: no row is generated twice, and in the end the
results equal those of one run over everything.
"""

import json
import os
import random
import re
import shutil
import signal
import time
from collections import Counter
from dataclasses import replace
from multiprocessing.process import BaseProcess
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from stand_ins import Setting, Speed
from standing import StandingJob, kill_group, make_job, wait_for_rows

import jobs
from run_batch.jobs.job.config import load_config
from run_batch.jobs.watch.job_folder import JobFolder
from run_batch.jobs.watch.report import write_report
from run_batch.jobs.watch.status import read_status

FAST = Speed(step_seconds=0.001)
PER_SHARD = 40
# Each fails in the first part of a shard that grows, or in its rest.
BAD = {83, 104, 119, 120, 150}


def table(first: int, stop: int) -> pa.Table:
    rows = range(first, stop)
    return pa.table(
        {"uid": [f"u{i:06d}" for i in rows], "prompt": ["bad" if i in BAD else f"prompt {i}" for i in rows]}
    )


def make(folder: Path, stops: list[int], speed: Speed = FAST, **tables: dict[str, object]) -> StandingJob:
    """A job over a folder of files, of which each ends before one of these rows."""
    inputs = {"path": "in", "image_column": "", **tables.pop("input", {})}
    output = {"rows_per_shard": PER_SHARD, "columns": ["prompt"], **tables.pop("output", {})}
    job = make_job(folder, ["unused"], speed, input=inputs, output=output, **tables)
    (folder / "rows.parquet").unlink()
    (folder / "in").mkdir()
    add(job, *stops)
    return job


def add(job: StandingJob, *stops: int) -> None:
    """Add files to the input."""
    folder = job.config.parent / "in"
    for stop in stops:
        first = max([int(path.stem) for path in folder.iterdir()], default=0)
        pq.write_table(table(first, stop), folder / f"{stop:06d}.parquet")


def limited(job: StandingJob, limit: int | None) -> StandingJob:
    """The same job with another input.limit."""
    lines = [line for line in job.config.read_text().splitlines() if not line.startswith("limit")]
    if limit is not None:
        lines.insert(lines.index("[input]") + 1, f"limit = {limit}")
    job.config.write_text("\n".join(lines) + "\n")
    return job


def check_results(job: StandingJob, rows: int) -> None:
    """The job is complete, as if one run had done all of it, and has generated no row twice."""
    assert job.is_complete()
    found = job.table().to_pylist()
    expected = table(0, rows).to_pylist()
    assert [row["row_id"] for row in found] == [row["uid"] for row in expected]
    assert [row["prompt"] for row in found] == [row["prompt"] for row in expected]
    texts = [None if row in BAD else f"text of prompt {row}" for row in range(rows)]
    assert [row["text"] for row in found] == texts
    assert [row["error"] for row in found] == ["bad_row: it says so" if row in BAD else None for row in range(rows)]
    assert sorted(job.generated()) == sorted(set(range(rows)) - BAD)
    assert [pq.read_metadata(path).num_rows for path in jobs.shards(job.config)][:-1] == [PER_SHARD] * (
        (rows - 1) // PER_SHARD
    )
    summary = json.loads((job.store / ".run_batch" / "summary.json").read_text())
    failed = sum(row < rows for row in BAD)
    assert (summary["rows"], summary["failed"]) == (rows, failed)
    status = read_status(load_config(job.config), verify=True)
    assert (status.state, status.rows, status.done, status.failed, status.left) == ("complete", rows, rows, failed, 0)
    assert (status.shards_done, status.damaged) == (status.shards, {})
    assert not any((job.store / ".run_batch" / "journal").iterdir())
    page = write_report(JobFolder.of(load_config(job.config)))[0].read_text()
    assert re.search(rf"done</pre></td><td><pre[^>]*>{rows:,}</pre>", page) and "input.path" in page


def run_shares(job: StandingJob, count: int) -> None:
    processes = [job.share(index, count).start() for index in range(count)]
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * count, job.said()


@pytest.mark.parametrize("shares", [1, 3])
def test_a_run_of_the_first_rows_grows_to_all(tmp_path: Path, shares: int) -> None:
    job = limited(make(tmp_path, [250, 400]), 100)
    for limit, rows in ((100, 100), (130, 130), (None, 400)):
        limited(job, limit)
        run_shares(job, shares)
        check_results(job, rows)
    plans = [json.loads(path.read_text()) for path in sorted((job.store / ".run_batch").glob("plan-*.json"))]
    assert [plan["rows"] for plan in plans] == [100, 130, 400]
    # A shard that is full by now needs no look any more.
    assert [plan["cut"] for plan in plans] == [[], [2], [3]]


def test_what_an_interrupted_run_has_finished_is_kept_when_the_job_grows(tmp_path: Path) -> None:
    # Some rows of each shard are in a journal alone: also of the last one, which has more rows in the next plan.
    job = make(tmp_path, [100], Speed(max_num_seqs=64, step_seconds=0.05))
    process = job.start()
    wait_for_rows(job, 60)
    os.kill(process.pid or 0, signal.SIGTERM)
    process.join(60)
    assert process.exitcode == 75 and 60 <= len(job.generated()) < 97
    add(job, 170)
    done = read_status(load_config(job.config)).done
    assert replace(job, speed=FAST).run()[0] == 0
    assert done >= 60
    check_results(job, 170)


def test_rows_that_were_finished_of_a_shards_rest_are_kept_too(tmp_path: Path) -> None:
    job = make(tmp_path, [100])
    assert job.run()[0] == 0
    add(job, 170)
    slow = replace(job, speed=Speed(max_num_seqs=4, step_seconds=0.05))
    process = slow.start()
    wait_for_rows(job, 97 + 9)
    found = read_status(load_config(job.config))
    assert (found.state, found.rows, found.shards_done) == ("running", 170, 2) and 100 <= found.done <= 112
    os.kill(process.pid or 0, signal.SIGTERM)
    process.join(60)
    found = read_status(load_config(job.config))
    assert found.state == "stopped" and found.failed >= 2, "one that failed before, and one of the rest"
    assert found.done == len(job.generated()) + found.failed
    assert job.run()[0] == 0
    check_results(job, 170)


def test_files_are_added_twice_once_while_another_share_runs(tmp_path: Path) -> None:
    job = make(tmp_path, [100])
    slow = replace(job, speed=Speed(max_num_seqs=1, step_seconds=0.02), setting=Setting(rows_ahead=1))
    # Of three shards, share 1 of 2 has the last two; the last one is cut, and it works on it when the others come.
    first = slow.share(1, 2).start()
    wait_for_rows(job, 1)
    add(job, 170)
    codes = []
    other = job.share(0, 2).start()
    other.join(60)
    codes.append(other.exitcode)
    add(job, 301)
    codes += [job.share(index, 3).run()[0] for index in range(3)]
    first.join(60)
    assert (first.exitcode, codes) == (0, [0] * 4), job.said()
    assert job.share(0, 1).run()[0] == 0
    check_results(job, 301)


def test_a_shard_that_a_running_process_commits_short_gets_its_rest_from_the_one_that_waits_for_it(
    tmp_path: Path,
) -> None:
    job = make(tmp_path, [60])
    slow = replace(job, speed=Speed(max_num_seqs=1, step_seconds=0.03), setting=Setting(rows_ahead=1))
    # The second of two shards, 20 rows of it, is all that this one has.
    old = slow.share(1, 2).start()
    wait_for_rows(job, 1)
    add(job, 140)
    new = job.share(0, 1).start()
    old.join(60)
    new.join(60)
    assert (old.exitcode, new.exitcode) == (0, 0), job.said()
    assert "the job has 140 rows by now" in job.said()
    check_results(job, 140)
    footers = [pq.read_metadata(path).metadata for path in jobs.shards(job.config)]
    attempts = [json.loads(footer[b"run_batch.commit"])["attempt"] for footer in footers]
    assert attempts == [0, 1, 0, 0]


def test_shares_that_grow_a_job_at_the_same_moment_agree(tmp_path: Path) -> None:
    job = make(tmp_path, [100])
    assert job.run()[0] == 0
    add(job, 170, 301)
    run_shares(job, 4)
    assert job.said().count("the job grows from 100 to 301 rows") == 1
    assert not (job.store / ".run_batch" / "plan-3.json").exists()
    check_results(job, 301)


def test_a_run_that_is_killed_at_any_step_of_growing_leaves_what_the_next_one_goes_on_from(tmp_path: Path) -> None:
    base = make(tmp_path / "base", [50])
    assert base.run()[0] == 0
    died_with_plan = 0
    for step in range(1, 40):
        shutil.copytree(tmp_path / "base", tmp_path / str(step))
        job = replace(base, config=tmp_path / str(step) / "job.toml")
        add(job, 70)
        process = replace(job, setting=Setting(dies_before_change=step)).start()
        process.join(60)
        assert process.exitcode == -signal.SIGKILL, job.said()
        has_plan = (job.store / ".run_batch" / "plan-2.json").exists()
        status = read_status(load_config(job.config), verify=True)
        assert (status.rows, status.done, status.damaged) == (70 if has_plan else 50, 50, {})
        assert not (has_plan and job.is_complete())
        if step == 5 and not has_plan:  # whoever goes on with the job of before finds it complete
            added = job.config.parent / "in" / "000070.parquet"
            added.rename(job.config.parent / "later")
            assert job.run()[0] == 0 and job.is_complete()
            check_results(job, 50)
            (job.config.parent / "later").rename(added)
        assert job.run()[0] == 0, job.said()
        check_results(job, 70)
        died_with_plan += has_plan
        if died_with_plan == 3:
            break
    assert died_with_plan == 3 and step > 8


@pytest.mark.parametrize(("kills", "files"), [(4, 3), pytest.param(100, 40, marks=pytest.mark.long)])
def test_shares_that_are_killed_at_random_while_a_job_grows_lose_and_double_nothing(
    tmp_path: Path, kills: int, files: int
) -> None:
    dice = random.Random(kills)
    job = make(tmp_path, [100], Speed(step_seconds=0.02))
    rows, running = 100, dict[int, BaseProcess]()
    for killed in range(kills):
        if killed % max(kills // files, 1) == 0:
            rows += dice.randrange(1, 3 * PER_SHARD)
            add(job, rows)
        for index in range(3):
            if index not in running or running[index].exitcode is not None:
                running[index] = job.share(index, 3).start()
        time.sleep(dice.uniform(0.1, 0.6))
        kill_group(running[dice.randrange(3)])
    for process in running.values():
        process.join(120)
    run_shares(replace(job, speed=FAST), 2)
    repeated = Counter(job.generated())
    assert sum(repeated.values()) - len(repeated) <= 16 * kills
    job.log.write_text("".join(f"{row}\n" for row in repeated))
    check_results(job, rows)


def test_a_file_that_was_added_by_mistake_is_taken_back_before_its_first_row(tmp_path: Path) -> None:
    job = make(tmp_path, [50])
    assert job.run()[0] == 0
    add(job, 70)
    checked = jobs.run(job.config, command="check")
    assert "the folder holds 50 rows of this job, done or planned; 20 will be added" in checked.stdout, checked.stderr
    assert job.is_complete()
    process = replace(job, setting=Setting(load_seconds=60)).start()
    deadline = time.monotonic() + 30
    while not (job.store / ".run_batch" / "plan-2.json").exists():
        assert time.monotonic() < deadline, job.said()
        time.sleep(0.01)
    kill_group(process)
    (tmp_path / "in" / "000070.parquet").unlink()
    code, said = job.run()
    assert code == 0 and "the job goes back from 70 to 50 rows" in said
    check_results(job, 50)


def test_failed_rows_of_a_job_that_has_grown_are_retried_once_it_is_complete(tmp_path: Path) -> None:
    job = make(tmp_path, [100])
    assert job.run()[0] == 0
    add(job, 170)
    retry = replace(job, setting=Setting(retry_failed=True))
    code, said = retry.run()
    assert code == 2 and "without it first" in said and job.is_complete(), "it is the job of before still"
    assert job.run()[0] == 0 and retry.run()[0] == 0
    add(job, 200)
    assert job.run()[0] == 0
    check_results(job, 200)


def test_input_model_and_results_move_and_the_job_goes_on(tmp_path: Path) -> None:
    job = make(tmp_path / "first", [100], model={"path": "model"})
    shutil.copytree(jobs.TABLES["model"]["path"], tmp_path / "first" / "model")
    slow = replace(job, speed=Speed(max_num_seqs=8, step_seconds=0.02))
    process = slow.start()
    wait_for_rows(job, 30)
    kill_group(process)
    before = len(job.generated())
    shutil.move(tmp_path / "first" / "in", tmp_path / "mounted")
    shutil.copytree(tmp_path / "first" / "model", tmp_path / "copied")
    (tmp_path / "copied" / ".cache").mkdir()
    (tmp_path / "copied" / ".cache" / "x").touch()
    shutil.rmtree(tmp_path / "first" / "model")
    shutil.move(tmp_path / "first", tmp_path / "second")
    moved = StandingJob(tmp_path / "second" / "job.toml", FAST)
    text = moved.config.read_text().replace('"in"', f'"file://{tmp_path}/mounted"')
    moved.config.write_text(text.replace('path = "model"', f'path = "{tmp_path}/copied"'))
    code, said = moved.run()
    assert code == 0, said
    repeated = Counter(moved.generated())
    assert sum(repeated.values()) - len(repeated) <= 16, "more was repeated than was in the engine"
    moved.log.write_text("".join(f"{row}\n" for row in repeated))
    check_results(moved, 100)
    assert before < 97
