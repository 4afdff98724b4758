"""A machine that cannot read the images of its rows: it stops, eats no row of the job, and helps no other process."""

import os
import signal
from dataclasses import replace
from pathlib import Path

import pyarrow.compute as pc
import pytest
from stand_ins import Setting, Speed
from standing import StandingJob, kill_group, make_job, wait_for_rows
from test_shares import finish, status, summary, wait_for_progress

ROWS = 400
SLOW = Speed(step_seconds=0.02)


def make(folder: Path, prompts: list[str], speed: Speed | None = None, min_rows: int = 50) -> StandingJob:
    errors = {"max_fraction": 0.1, "min_rows": min_rows}
    return make_job(folder, prompts, speed, output={"rows_per_shard": 10}, errors=errors)


def good(count: int = ROWS) -> list[str]:
    return [f"prompt {i}" for i in range(count)]


def broken(job: StandingJob) -> StandingJob:
    # While the engine loads, all of a share's rows are mapped: before the first of them is judged.
    return replace(job, setting=replace(job.setting, lost_images=lost(job), load_seconds=0.5))


def lost(job: StandingJob) -> Path:
    """Where a broken machine logs the rows that it has tried."""
    return job.config.with_name("lost.log")


def share_of_shards(job: StandingJob) -> list[int]:
    return sorted(int(path.stem[5:]) // 10 for path in job.store.glob("part-*.parquet"))


@pytest.mark.parametrize("min_rows", [50, 1000])
def test_one_of_four_shares_without_images_stops_and_the_next_run_generates_its_rows(
    tmp_path: Path, min_rows: int
) -> None:
    job = make(tmp_path, good(), SLOW, min_rows)
    # The broken one is the fastest by far, and is done while all others still have shards to steal.
    slow = replace(job, speed=Speed(step_seconds=0.1), setting=Setting(rows_ahead=16))
    others = [slow.share(index, 4).start() for index in range(3)]
    for index in range(3):
        wait_for_progress(job.store / ".run_batch" / "shares" / f"{index}-of-4" / "progress.json", 1)
    code, said = broken(job.share(3, 4)).run()
    assert code == 1 and "image_not_found: " in said and "errors.max_fraction" in said and "No such" not in said, said
    assert finish(others) == [0, 0, 0] and not job.is_complete()
    assert {int(row) // 100 for row in lost(job).read_text().split()} == {3}, "it has taken rows of other shares"
    assert share_of_shards(job).count(3) < 10 and [share_of_shards(job).count(i) for i in range(3)] == [10] * 3
    found = status(job)
    assert found["failed"] == 0 and found["done"] == found["rows"] - found["left"] == 10 * len(share_of_shards(job))
    assert job.share(3, 4).run()[0] == 0
    assert job.is_complete() and summary(job)["failed"] == 0
    assert job.table()["text"].to_pylist() == [f"text of {prompt}" for prompt in good()]
    assert len(job.generated()) == len(set(job.generated())) == ROWS


def test_a_job_that_has_lost_its_images_keeps_what_is_done_and_ends_with_1_until_they_are_back(tmp_path: Path) -> None:
    job = make(tmp_path, good(), SLOW)
    process = job.start()
    wait_for_rows(job, 100)
    os.kill(process.pid or 0, signal.SIGTERM)
    assert finish([process]) == [75]
    before = status(job)["done"]
    for _ in range(2):
        assert broken(job).run()[0] == 1
        assert (status(job)["done"], status(job)["failed"]) == (before, 0)
    code, said = job.run()
    assert code == 0 and job.is_complete() and job.table()["error"].null_count == ROWS, said
    assert len(set(job.generated())) == ROWS


def test_a_machine_that_loses_its_images_on_the_way_stops_and_keeps_what_it_has_done(tmp_path: Path) -> None:
    job = make(tmp_path, good(200) + ["missing"] * 200)
    for _ in range(2):
        code, said = job.run()
        assert code == 1 and "6 of the last 50 rows failed" in said, said
        assert status(job)["failed"] == 0 and int(str(status(job)["done"])) >= 180
    job.config.write_text(job.config.read_text().replace("max_fraction = 0.1", "max_fraction = 1.0"))
    assert job.run()[0] == 0 and summary(job)["errors"] == {"image_not_found": 200}
    assert sorted(set(job.generated())) == list(range(200))


def test_missing_images_within_the_limit_are_failed_rows_whenever_the_run_is_killed(tmp_path: Path) -> None:
    prompts = ["missing" if i % 20 == 7 else f"prompt {i}" for i in range(ROWS)]
    job = make(tmp_path, prompts, SLOW)
    for count in (60, 150):
        process = job.start()
        wait_for_rows(job, count)
        kill_group(process)
    code, said = job.run()
    assert code == 0 and summary(job)["errors"] == {"image_not_found": 20}, said
    found = [error is not None for error in job.table()["error"].to_pylist()]
    assert found == [prompt == "missing" for prompt in prompts]
    assert job.run()[0] == 0
    # They fail again, and nothing else is lost by that.
    retried = replace(job, setting=replace(job.setting, retry_failed=True))
    assert retried.run()[0] == 0 and pc.sum(pc.is_valid(job.table()["error"])).as_py() == 20


@pytest.mark.parametrize(("missing", "code"), [(1, 0), (2, 1)])
def test_a_small_job_is_judged_at_its_end(tmp_path: Path, missing: int, code: int) -> None:
    job = make(tmp_path, ["missing"] * missing + good(10 - missing))
    found, said = job.run()
    assert found == code and job.is_complete() == (code == 0), said
    assert sorted(job.generated()) == list(range(missing, 10)), "the other rows are not generated"
    if code:
        assert f"{missing} of the first 10 rows failed" in said and not share_of_shards(job)
        config = job.config.read_text().replace("max_fraction = 0.1", "max_fraction = 0.2")
        job.config.write_text(config)
        assert job.run()[0] == 0 and job.is_complete()
        assert sorted(job.generated()) == list(range(missing, 10)), "rows were generated twice"


def test_failures_of_the_rows_themselves_do_not_stop_the_run(tmp_path: Path) -> None:
    job = make(tmp_path, [f"prompt {i}" if i % 2 else "bad" for i in range(200)])
    code, said = job.run()
    assert code == 3 and job.is_complete() and "errors.max_fraction = 0.1" in said
    assert summary(job)["errors"] == {"bad_row": 100}


def test_with_a_fraction_of_1_missing_images_are_failed_rows(tmp_path: Path) -> None:
    job = make(tmp_path, ["missing" if i % 2 else f"prompt {i}" for i in range(100)])
    job.config.write_text(job.config.read_text().replace("max_fraction = 0.1", "max_fraction = 1.0"))
    assert job.run()[0] == 0 and summary(job)["errors"] == {"image_not_found": 50}
