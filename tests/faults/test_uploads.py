"""Shards are copied to an object store while a job runs: each once, whole, `_SUCCESS` last, whatever fails then."""

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from object_store import DENIED, SLOW_DOWN, ObjectStore
from stand_ins import Setting, Speed
from standing import StandingJob, kill_group, make_job

import jobs
from run_batch.jobs.job.config import load_config
from run_batch.jobs.watch.status import JobStatus, read_status

ROWS, PER_SHARD = 60, 10
FAST = Speed(step_seconds=0.002)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ObjectStore]:
    store = ObjectStore(f"bucket-{os.getpid()}-{time.monotonic_ns()}")
    yield store
    store.stop()


@pytest.fixture
def job(tmp_path: Path, store: ObjectStore) -> StandingJob:
    return make(tmp_path, store)


def make(folder: Path, store: ObjectStore, prompts: list[str] | None = None, **tables: Any) -> StandingJob:
    prompts = prompts or [f"prompt {i}" for i in range(ROWS)]
    output = {"rows_per_shard": PER_SHARD, "upload": f"s3://{store.bucket}/results", **tables.pop("output", {})}
    job = make_job(folder, prompts, FAST, output=output, **tables)
    return replace(job, setting=Setting(environment=tuple(store.environment.items())))


def parts(*numbers: int) -> list[str]:
    return [f"part-{number:06d}.parquet" for number in numbers]


def status(job: StandingJob) -> JobStatus:
    return read_status(load_config(job.config))


def check_copies(job: StandingJob, store: ObjectStore) -> None:
    """The bucket holds what the folder holds, byte for byte, and `_SUCCESS` came last."""
    found = store.objects()
    expected = {f"results/{path.name}": path.read_bytes() for path in jobs.shards(job.config)}
    assert found == {**expected, "results/_SUCCESS": b""}
    assert job.is_complete() and store.written()[-1] == "_SUCCESS"
    assert (status(job).state, status(job).uploaded) == ("complete", len(expected))


def wait_until(happened: Any, job: StandingJob, timeout: float = 30) -> None:
    deadline = time.monotonic() + timeout
    while not happened():
        assert time.monotonic() < deadline, job.said()
        time.sleep(0.005)


def test_each_shard_is_copied_once_and_the_mark_of_a_complete_job_last(job: StandingJob, store: ObjectStore) -> None:
    assert job.run()[0] == 0, job.said()
    check_copies(job, store)
    assert store.written() == ["-_SUCCESS", *parts(*range(6)), "_SUCCESS"]
    assert "uploaded: 6 of 6 shards" in status(job).as_text()
    before = len(store.written())
    assert job.run()[0] == 0
    assert not [name for name in store.written()[before:] if name.startswith("part-")], "copied again"
    (ledger,) = (job.store / ".run_batch" / "uploads").iterdir()
    tags = {line["shard"]: line["etag"] for line in map(json.loads, ledger.read_text().splitlines())}
    head = store.client.head_object(Bucket=store.bucket, Key="results/part-000004.parquet")
    assert len(tags) == 6 and tags[4] == head["ETag"].strip('"')


def test_a_busy_store_is_asked_again_and_no_row_waits_for_it(job: StandingJob, store: ObjectStore) -> None:
    # As long as rows are generated, and twice more; and once for the mark.
    left, marks = [2], [1]

    def fault(method: str, path: str) -> tuple[int, str] | None:
        if method == "PUT" and "_SUCCESS" in path and marks:
            marks.pop()
            return SLOW_DOWN
        if method != "PUT" or "part-" not in path or left[0] == 0:
            return None
        left[0] -= job.is_complete() or len(job.generated()) == ROWS
        return SLOW_DOWN

    store.fault = fault
    code, said = job.run()
    assert code == 0 and "it is tried again while the run goes on" in said, said
    check_copies(job, store)


def test_a_store_that_dies_and_comes_back_gets_all_shards(job: StandingJob, store: ObjectStore) -> None:
    job.speed = Speed(step_seconds=0.02)
    process = job.start()
    wait_until(lambda: "part-000000.parquet" in store.written(), job)
    store.stop()
    wait_until(lambda: len(jobs.shards(job.config)) == 6, job)
    store.start()
    process.join(60)
    assert process.exitcode == 0, job.said()
    check_copies(job, store)


def test_a_store_that_stays_away_ends_a_job_whose_rows_are_done_with_74(job: StandingJob, store: ObjectStore) -> None:
    job = make(job.config.parent / "limited", store, errors={"storage_seconds": 3.0})
    job.speed = Speed(step_seconds=0.02)
    process = job.start()
    wait_until(lambda: "part-000000.parquet" in store.written(), job)
    store.stop()
    process.join(60)
    said = job.said()
    assert process.exitcode == 74 and "shards are not copied" in said and "Could not connect" in said, said
    assert "the run waits for" in said and "Traceback" not in said
    assert job.is_complete() and len(job.generated()) == ROWS
    found = status(job)
    assert (found.state, found.done, found.left) == ("stopped", ROWS, 0) and found.uploaded in range(6)
    assert job.run()[0] == 74, "nothing to do but the copies"
    store.start()
    assert job.run()[0] == 0, job.said()
    assert len(job.generated()) == ROWS
    check_copies(job, store)


@pytest.mark.long
def test_a_store_that_never_answers_ends_a_job_with_74_and_a_signal_ends_it_with_75(
    tmp_path: Path, store: ObjectStore
) -> None:
    job = make(tmp_path, store, errors={"storage_seconds": 3.0})
    gate = threading.Event()
    store.fault = lambda method, path: gate.wait() and None if method == "PUT" and "part-" in path else None
    code, said = job.run()
    assert code == 74 and "6 shards are not copied: no answer" in said, said
    asked, fault = threading.Event(), store.fault

    def tell(method: str, path: str) -> tuple[int, str] | None:
        if method == "PUT" and "part-" in path:
            asked.set()
        return fault(method, path)

    store.fault = tell
    process = job.start()
    assert asked.wait(30), job.said()
    os.kill(process.pid or 0, signal.SIGTERM)
    process.join(20)
    assert process.exitcode == 75, job.said()
    store.fault = lambda method, path: None
    gate.set()
    assert job.run()[0] == 0, job.said()
    check_copies(job, store)


def test_a_store_that_refuses_in_the_midst_of_a_run_ends_it_at_its_end(job: StandingJob, store: ObjectStore) -> None:
    store.fault = lambda method, path: DENIED if "part-000003" in path else None
    code, said = job.run()
    assert code == 1 and "part-000003.parquet cannot be written" in said and "Access" in said, said
    assert "Traceback" not in said and job.is_complete() and "_SUCCESS" not in store.written()
    store.fault = lambda method, path: None
    assert job.run()[0] == 0
    check_copies(job, store)


def test_a_run_that_is_killed_between_commit_and_copy_loses_no_copy(job: StandingJob, store: ObjectStore) -> None:
    begun, gate = threading.Event(), threading.Event()

    def fault(method: str, path: str) -> None:
        if method == "PUT" and "part-000002" in path:
            begun.set()
            gate.wait()

    store.fault = fault
    process = job.start()
    wait_until(lambda: len(jobs.shards(job.config)) == 6 and begun.is_set(), job)
    kill_group(process)
    assert status(job).uploaded == 2
    store.fault = lambda method, path: None
    gate.set()
    assert job.run()[0] == 0, job.said()
    check_copies(job, store)
    assert [store.written().count(name) for name in parts(0, 1, 3, 4, 5)] == [1] * 5
    assert len(job.generated()) == ROWS


def test_a_run_that_is_killed_within_an_upload_of_many_parts_leaves_no_half_object(
    tmp_path: Path, store: ObjectStore
) -> None:
    job = make(tmp_path, store, output={"columns": ["blob"], "rows_per_shard": ROWS})
    table = pq.read_table(tmp_path / "rows.parquet")
    table = table.append_column("blob", pa.array([os.urandom(2 << 20) for _ in range(ROWS)]))
    pq.write_table(table, tmp_path / "rows.parquet")
    gate = threading.Event()

    def fault(method: str, path: str) -> None:
        if "partNumber=2" in path:
            gate.wait()

    store.fault = fault
    process = job.start()
    wait_until(lambda: any("partNumber=1" in path for _, path in store.asked), job)
    kill_group(process)
    assert store.objects() == {}
    store.fault = lambda method, path: None
    gate.set()
    assert job.run()[0] == 0, job.said()
    check_copies(job, store)


def test_shares_copy_what_they_commit_and_the_last_one_marks_the_job(job: StandingJob, store: ObjectStore) -> None:
    job.speed = Speed(step_seconds=0.01)
    processes = [job.share(index, 3).start() for index in range(3)]
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * 3, job.said()
    check_copies(job, store)
    assert sorted(name for name in store.written() if "part-" in name) == parts(*range(6))


def test_what_a_dead_share_has_committed_is_copied_by_the_one_that_ends_last(
    job: StandingJob, store: ObjectStore
) -> None:
    gate = threading.Event()
    store.fault = lambda method, path: gate.wait() and None if method == "PUT" and "part-" in path else None
    dead = job.share(1, 2).start()
    wait_until(lambda: len(jobs.shards(job.config)) >= 3, job)
    kill_group(dead)
    gate.set()
    assert job.share(0, 2).run()[0] == 0, job.said()
    check_copies(job, store)


def test_engines_of_one_machine_copy_and_their_parent_marks_the_job(job: StandingJob, store: ObjectStore) -> None:
    job.setting = replace(job.setting, gpus=("0", "1"))
    assert job.run()[0] == 0, job.said()
    check_copies(job, store)
    assert sorted(name for name in store.written() if "part-" in name) == parts(*range(6))


def test_the_mark_is_taken_away_before_a_shard_is_replaced(tmp_path: Path, store: ObjectStore) -> None:
    prompts = ["bad" if i == 25 else f"prompt {i}" for i in range(ROWS)]
    job = make(tmp_path, store, prompts)
    assert job.run()[0] == 0
    retried = replace(job, setting=replace(job.setting, retry_failed=True))
    before = len(store.written())
    assert retried.run()[0] == 0, job.said()
    assert store.written()[before:] == ["-_SUCCESS", *parts(2), "_SUCCESS"]
    check_copies(job, store)


def test_a_job_that_grows_copies_what_is_new_and_the_shard_that_it_ended_in(tmp_path: Path, store: ObjectStore) -> None:
    job = make(tmp_path, store, input={"limit": 25, "image_column": ""})
    assert job.run()[0] == 0
    job.config.write_text(job.config.read_text().replace("limit = 25", "limit = 35"))
    before = len(store.written())
    assert job.run()[0] == 0, job.said()
    assert store.written()[before:] == ["-_SUCCESS", *parts(2, 3), "_SUCCESS"]
    check_copies(job, store)


@pytest.mark.long
def test_another_url_gets_all_shards_of_a_job_that_is_done(job: StandingJob, store: ObjectStore) -> None:
    assert job.run()[0] == 0
    job.config.write_text(job.config.read_text().replace("/results", "/elsewhere"))
    assert (status(job).state, status(job).uploaded) == ("stopped", 0)
    assert job.run()[0] == 0, job.said()
    found = store.objects()
    names = [*parts(*range(6)), "_SUCCESS"]
    assert [found[f"elsewhere/{name}"] for name in names] == [found[f"results/{name}"] for name in names]
