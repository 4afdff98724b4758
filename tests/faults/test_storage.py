"""Storage that fails under a run: a clear message, exit code 1, nothing finished is lost, the same command finishes."""

import os
import random
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import disks
import power
import pyarrow.parquet as pq
import pytest
from disks import needs_mounts
from stand_ins import Setting, Speed
from standing import StandingJob, kill_group, make_job, wait_for_rows

import jobs

ROWS = 400
FAST = Speed(step_seconds=0.002)
PROMPTS = [f"prompt {i}" for i in range(ROWS)]


@pytest.fixture
def job(tmp_path: Path) -> StandingJob:
    return make_job(tmp_path, PROMPTS, FAST, output={"rows_per_shard": 20})


@pytest.fixture
def small_disk(job: StandingJob) -> Iterator[Path]:
    """The job's output folder is a file system of one megabyte."""
    job.store.mkdir()
    disks.run("mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", job.store)
    yield job.store
    disks.run("umount", "-l", job.store)


def stamps(job: StandingJob) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in jobs.shards(job.config)}


def fails(job: StandingJob, said: str) -> None:
    code, message = job.run()
    assert code == 1 and said in message, message
    assert "Traceback" not in message and "again" in message, message


def finishes(job: StandingJob, kept: dict[str, int]) -> None:
    code, message = job.run()
    assert code == 0, message
    assert job.table()["text"].to_pylist() == [f"text of prompt {i}" for i in range(ROWS)]
    assert {name: stamp for name, stamp in stamps(job).items() if name in kept} == kept, "a shard was written again"


@needs_mounts
@pytest.mark.parametrize("points", [3, pytest.param(20, marks=pytest.mark.long)])
def test_a_disk_that_is_full_at_a_random_point(job: StandingJob, small_disk: Path, points: int) -> None:
    dice = random.Random(points)
    failed = 0
    while failed < points:
        for left in small_disk.iterdir():
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        job.log.unlink(missing_ok=True)
        room = dice.randrange(0, 160 << 10, 4096)
        (small_disk / "_filler").write_bytes(bytes((1 << 20) - room))
        code, said = job.run()
        if code == 0:
            continue
        failed += 1
        assert code == 1 and "No space left on device" in said and "Traceback" not in said, said
        kept, generated = stamps(job), len(job.generated())
        (small_disk / "_filler").unlink()
        finishes(job, kept)
        print(
            f"\nfull with {room >> 10} KiB of room: {len(kept)} shards kept, {generated} rows generated before", end=""
        )
        print(f", {len(job.generated()) - ROWS} generated again")
        assert len(job.generated()) - ROWS <= generated - 20 * len(kept)


@needs_mounts
def test_a_folder_that_cannot_be_written_to_is_named_before_anything_starts(job: StandingJob, small_disk: Path) -> None:
    disks.run("mount", "-o", "remount,ro", small_disk)
    code, said = job.run()
    assert code == 2 and "cannot be written to" in said and "Traceback" not in said
    disks.run("mount", "-o", "remount,rw", small_disk)
    finishes(job, {})


def test_a_file_in_the_way_of_the_output_folder_is_named_before_anything_starts(tmp_path: Path) -> None:
    job = make_job(tmp_path, PROMPTS, FAST, output={"path": "rows.parquet/out"})
    code, said = job.run()
    assert code == 2 and "output.path rows.parquet/out" in said and "cannot be written to" in said, said
    assert job.generated() == []


@pytest.fixture
def failing_disk(job: StandingJob, tmp_path: Path) -> Iterator[disks.Ext4]:
    job.store.mkdir()
    try:
        disk = disks.Ext4(tmp_path / "disk", job.store)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no ext4 in a file: {getattr(error, 'stderr', error)}")
    yield disk
    disk.remove()


@needs_mounts
@pytest.mark.parametrize("rows_before", [100, pytest.param(3, marks=pytest.mark.long)])
def test_a_disk_that_becomes_read_only_under_the_run(
    job: StandingJob, failing_disk: disks.Ext4, rows_before: int
) -> None:
    job.speed = Speed(step_seconds=0.01)
    process = job.start()
    wait_for_rows(job, rows_before)
    kept = stamps(job)
    failing_disk.fail()
    process.join(20)
    assert process.exitcode == 1 and "Read-only file system" in job.said(), job.said()
    assert "Traceback" not in job.said() and "run the same command again" in job.said(), job.said()
    generated = len(job.generated())
    assert job.run()[0] == 2, "the folder is still read-only"
    failing_disk.repair()
    finishes(job, kept)
    assert len(job.generated()) - ROWS <= generated - 20 * len(kept)


@pytest.mark.parametrize(
    ("setting", "reason"),
    [(Setting(quota=40_000), "Disk quota exceeded"), (Setting(file_bytes=1_800), "File too large")],
    ids=["quota", "file size"],
)
def test_storage_that_takes_no_more_of_this_user(job: StandingJob, setting: Setting, reason: str) -> None:
    job.setting = setting
    fails(job, reason)
    kept, generated = stamps(job), len(job.generated())
    job.setting = Setting()
    finishes(job, kept)
    assert generated < ROWS
    assert len(job.generated()) - ROWS <= generated - 20 * len(kept)


def test_an_output_folder_that_is_deleted_under_the_run(tmp_path: Path) -> None:
    job = make_job(tmp_path, PROMPTS, output={"rows_per_shard": 50})
    process = job.start()
    wait_for_rows(job, 60)
    shutil.rmtree(job.store)
    process.join(20)
    assert process.exitcode == 1 and "Traceback" not in job.said(), job.said()
    assert "cannot be written to" in job.said() or "no longer exists" in job.said()
    finishes(job, {})


def test_an_output_folder_that_is_deleted_while_no_shard_is_due_is_noticed(tmp_path: Path) -> None:
    job = make_job(tmp_path, PROMPTS, Speed(step_seconds=0.2), output={"rows_per_shard": 1000})
    process = job.start()
    wait_for_rows(job, 4)
    shutil.rmtree(job.store)
    process.join(15)
    assert process.exitcode == 1 and "no longer exists" in job.said(), job.said()
    kill_group(process)


def test_an_input_that_changes_under_the_run_is_refused(tmp_path: Path) -> None:
    job = make_job(tmp_path, PROMPTS, output={"rows_per_shard": 20})
    file = tmp_path / "rows.parquet"
    before = file.read_bytes()
    process = job.start()
    wait_for_rows(job, 100)
    table = pq.read_table(file)
    changed = table.set_column(1, "prompt", [[f"changed {i}" for i in range(ROWS)]])
    pq.write_table(changed, tmp_path / "new.parquet", row_group_size=64)
    os.replace(tmp_path / "new.parquet", file)
    process.join(20)
    assert process.exitcode == 1 and "rows.parquet has changed since the job started" in job.said(), job.said()
    kept = stamps(job)
    assert kept and set(jobs.results(job.config)["text"].to_pylist()) <= {f"text of {p}" for p in PROMPTS}
    code, said = job.run()
    assert code == 2 and "what input.path holds now: rows.parquet has other content" in said, said
    file.write_bytes(before)
    finishes(job, kept)


def test_an_input_that_is_cut_off_is_named(job: StandingJob) -> None:
    file = job.config.with_name("rows.parquet")
    before = file.read_bytes()
    file.write_bytes(before[: len(before) // 2])
    code, said = job.run()
    assert code == 2 and "rows.parquet cannot be read as Parquet" in said and "Traceback" not in said, said
    file.write_bytes(before)
    finishes(job, {})


def test_a_row_group_that_fails_its_checksum_is_never_taken_for_data(job: StandingJob) -> None:
    file = job.config.with_name("rows.parquet")
    table = pq.read_table(file)
    pq.write_table(table, file, row_group_size=64, write_page_checksum=True, compression="none", use_dictionary=False)
    before = file.read_bytes()
    place = before.index(b"prompt 350")
    file.write_bytes(before[:place] + b"promqt" + before[place + 6 :])
    fails(job, "rows.parquet is damaged")
    kept = stamps(job)
    file.write_bytes(before)
    finishes(job, kept)


def test_a_shard_that_is_damaged_is_named_and_made_again(job: StandingJob) -> None:
    job.run()
    shard = jobs.shards(job.config)[3]
    shard.write_bytes(shard.read_bytes()[:100])
    code, said = job.run()
    assert code == 0 and "part-000003.parquet is damaged" in said
    finishes(job, {})


@pytest.mark.parametrize("cuts", [3, pytest.param(20, marks=pytest.mark.long)])
def test_a_power_cut_costs_one_second_of_rows(tmp_path: Path, cuts: int) -> None:
    dice = random.Random(cuts)
    prompts = [f"prompt {i}" for i in range(500 * cuts)]
    # One shard: until the end, the journal alone has the rows.
    job = make_job(tmp_path, prompts, Speed(step_seconds=0.02), output={"rows_per_shard": len(prompts)})
    for number in range(cuts):
        durable = tmp_path / f"durable-{number}"
        if job.store.exists():
            shutil.copytree(job.store, durable)
        job.setting = Setting(durable=durable)
        process = job.start()
        time.sleep(dice.uniform(2.0, 3.0))
        assert process.exitcode is None, f"the job ended after {number} cuts: {job.said()}"
        kill_group(process)
        power.cut(job.store, durable)
    job.setting, job.speed = Setting(), FAST
    code, said = job.run(timeout=300)
    assert code == 0, said
    assert job.table()["text"].to_pylist() == [f"text of {prompt}" for prompt in prompts]
    repeated = len(job.generated()) - len(prompts)
    per_second = 8 / 2.5 / 0.02
    print(f"\n{cuts} power cuts: {repeated / cuts:.1f} rows a cut generated again; {per_second:.0f} rows/s")
    assert repeated <= cuts * (16 + per_second)
