"""One job in shares: together they are the whole job, whatever their number, their order, and what befalls them."""

import json
import os
import random
import re
import signal
import time
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from multiprocessing.process import BaseProcess
from pathlib import Path

import msgspec
import pyarrow as pa
import pytest
from stand_ins import Setting, Speed
from standing import StandingJob, kill_group, make_job, wait_for_rows

import jobs
from run_batch.io.outputs.shards import ShardStore
from run_batch.jobs.job.config import load_config
from run_batch.jobs.results.shard_commits import footer_of, read_commit, record_commit
from run_batch.jobs.watch.status import read_status

ROWS = 400
SLOW = Speed(step_seconds=0.02)


def prompts(count: int) -> list[str]:
    return ["bad" if i % 37 == 5 else f"prompt {i}" for i in range(count)]


def make(folder: Path, speed: Speed | None = None, rows: int = ROWS) -> StandingJob:
    return make_job(folder, prompts(rows), speed, output={"rows_per_shard": 10}, input={"image_column": ""})


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, object]]:
    job = make(tmp_path_factory.mktemp("whole"))
    assert job.run()[0] == 0
    return job.table().to_pylist()


def finish(processes: list[BaseProcess], seconds: float = 60) -> list[int | None]:
    deadline = time.monotonic() + seconds
    for process in processes:
        process.join(max(deadline - time.monotonic(), 0))
    return [process.exitcode for process in processes]


def summary(job: StandingJob) -> dict[str, object]:
    return json.loads((job.store / ".run_batch" / "summary.json").read_text())


def status(job: StandingJob) -> dict[str, object]:
    return json.loads(jobs.run(job.config, "--json", command="status").stdout)


def wait_for_progress(file: Path, rows: int, timeout: float = 60) -> None:
    deadline = time.monotonic() + timeout
    while not file.exists() or json.loads(file.read_text()).get("rows_done", 0) < rows:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_share_does_its_own_shards_and_the_last_one_completes_the_job(
    tmp_path: Path, whole: list[dict[str, object]]
) -> None:
    job = make(tmp_path)
    for index in (2, 0, 1):
        assert not job.is_complete()
        code, said = job.share(index, 3).run()
        assert code == 0 and said.startswith(f"{(130, 130, 140)[index]} of "), said
    assert job.is_complete() and job.table().to_pylist() == whole
    assert len(job.generated()) == ROWS - prompts(ROWS).count("bad")
    assert summary(job)["rows"] == ROWS and summary(job)["failed"] == prompts(ROWS).count("bad")
    found = status(job)
    assert (found["state"], found["done"], found["failed"]) == ("complete", ROWS, summary(job)["failed"])


def test_shares_side_by_side_do_no_row_twice(tmp_path: Path, whole: list[dict[str, object]]) -> None:
    job = make(tmp_path, SLOW)
    assert finish([job.share(index, 4).start() for index in range(4)]) == [0] * 4
    assert job.is_complete() and job.table().to_pylist() == whole
    assert len(job.generated()) == len(set(job.generated()))


def test_a_share_that_is_done_helps_one_that_is_not(tmp_path: Path, whole: list[dict[str, object]]) -> None:
    job = make(tmp_path)
    job.setting = Setting(rows_ahead=16)
    owner = replace(job.share(1, 2), speed=Speed(step_seconds=0.3)).start()
    wait_for_rows(job, 1)
    code, said = job.share(0, 2).run()
    assert code == 0 and finish([owner]) == [0]
    helped = re.search(r"200 of 200 rows done.* this run: (\d+) rows", said)
    assert helped is not None and int(helped[1]) > 240, said
    assert job.is_complete() and job.table().to_pylist() == whole
    assert len(job.generated()) == len(set(job.generated()))


def test_another_number_of_shares_takes_exactly_what_is_missing(tmp_path: Path, whole: list[dict[str, object]]) -> None:
    # So slow that none is done before the others have begun, whatever else this machine does.
    job = make(tmp_path, Speed(step_seconds=0.1))
    processes = [job.share(index, 4).start() for index in range(4)]
    wait_for_rows(job, 100)
    for process in processes[:2]:
        os.kill(process.pid or 0, signal.SIGTERM)
    for process in processes[2:]:
        kill_group(process)
    assert finish(processes[:2]) == [75, 75]
    before = len(job.generated())
    job = replace(job, speed=SLOW)
    assert finish([job.share(index, 3).start() for index in range(3)]) == [0] * 3
    assert job.is_complete() and job.table().to_pylist() == whole
    assert len(job.generated()) <= ROWS - prompts(ROWS).count("bad") + 2 * (16 + 40), (before, "rows were lost")
    assert not any((job.store / ".run_batch" / "journal").iterdir())


def test_status_tells_each_share_and_names_one_that_is_stalled(tmp_path: Path) -> None:
    # More rows than are done before the test has ended.
    job = make(tmp_path, Speed(step_seconds=0.1), 10 * ROWS)
    process = job.share(1, 2).start()
    progress = job.store / ".run_batch" / "shares" / "1-of-2" / "progress.json"
    wait_for_progress(progress, 20)
    found = status(job)
    assert found["state"] == "running" and found["rows"] == 10 * ROWS and int(str(found["done"])) >= 20
    shares = {share["share"]: share for share in found["shares"]}  # type: ignore[attr-defined]
    assert shares["0-of-2"]["state"] == "not started" and shares["1-of-2"]["state"] == "running"
    kill_group(process)
    assert status(job)["state"] == "stopped"
    # As if it were on another host, where nobody can see whether it is dead, and whose clock is wrong.
    (lease,) = progress.parent.glob("lease-*")
    for file, table in ((progress, "holder"), (lease, None)):
        record = json.loads(file.read_text())
        holder = record[table] if table else record
        holder |= {"machine": "another", "host": "node17"}
        record["updated"] = time.time() - 1000
        if file is lease:
            del record["updated"]
        file.write_text(json.dumps(record))
    assert status(job)["state"] == "running"
    for file in (progress, lease):
        os.utime(file, (time.time() - 120,) * 2)
    said = jobs.run(job.config, command="status").stdout
    assert re.search(r"share 1-of-2: stalled: no sign of life from node17 for 1\d\d s", said), said


def test_status_tells_that_an_engine_loads_and_how_much_there_is_to_do(tmp_path: Path) -> None:
    job = make(tmp_path, Speed(step_seconds=0.1))
    job.setting = Setting(load_seconds=60)
    process = job.share(0, 2).start()
    wait_for_progress(job.store / ".run_batch" / "job.json", 0)
    found = status(job)
    assert (found["state"], found["rows"], found["done"], found["left"]) == ("loading", ROWS, 0, ROWS)
    assert [share["state"] for share in found["shares"]] == ["loading", "not started"]  # type: ignore[attr-defined]
    kill_group(process)
    assert status(job)["state"] == "stopped"


@pytest.mark.parametrize("shares", [1, 2])
def test_the_counts_of_status_never_run_backwards_and_are_exact(tmp_path: Path, shares: int) -> None:
    job = make_job(tmp_path, ["p"] * 1000, Speed(step_seconds=0.005), output={"rows_per_shard": 100})
    config = load_config(job.config)
    counts = []
    for stops_at in (300, 700, 1000):
        processes = [job.share(index, shares).start() for index in range(shares)]
        while (done := read_status(config).done) < stops_at:
            # Not more than are finished, nor those of a shard twice: finished by the engine, written at most later.
            assert done <= len(set(job.generated()))
            counts.append(done)
            assert any(process.exitcode is None for process in processes) or stops_at == 1000
        for process in processes:
            if stops_at < 1000:
                with suppress(ProcessLookupError):  # one of two shares may have nothing left
                    os.kill(process.pid or 0, signal.SIGTERM)
        finish(processes)
        counts.append(read_status(config).done)
    assert counts == sorted(counts) and counts[-1] == 1000 and len(set(counts)) > 5


def test_what_a_helper_has_finished_when_it_is_stopped_is_kept(tmp_path: Path) -> None:
    # Shards so large that the helper ends within its first one, long before the turn of that comes in its own share.
    job = make_job(tmp_path, ["p"] * 400, output={"rows_per_shard": 100})
    job.setting = Setting(rows_ahead=16)
    owner = replace(job.share(1, 2), speed=Speed(max_num_seqs=1, step_seconds=0.02)).start()
    wait_for_rows(job, 1)
    helper = replace(job.share(0, 2), speed=Speed(max_num_seqs=4, step_seconds=0.01))
    process = helper.start()
    deadline = time.monotonic() + 30
    while sum(row >= 300 for row in job.generated()) < 50:
        assert time.monotonic() < deadline, job.said()
        time.sleep(0.01)
    os.kill(process.pid or 0, signal.SIGTERM)
    assert finish([process]) == [75]
    assert sum(row >= 200 for row in job.generated()) < 150
    assert finish([owner]) == [0] and job.is_complete()
    assert len(job.generated()) - len(set(job.generated())) <= 16, "what was in the helper's engine, and no more"


def fail_all(job: StandingJob, rows: range, per_shard: int) -> None:
    """Make these rows ones that have failed, in whole shards: `--retry-failed` generates them again."""
    store = ShardStore(job.store)
    for shard in range(rows.start // per_shard, rows.stop // per_shard):
        errors = pa.array(["url_failed: 503"] * per_shard)
        table = store.read(shard)
        table = table.set_column(table.schema.get_field_index("error"), "error", errors)
        commit = msgspec.structs.replace(read_commit(store, shard), errors={"url_failed": per_shard})
        store.commit(shard, table, footer_of(commit))
        record_commit(store, commit)


def test_a_share_that_has_retried_leaves_alone_what_the_others_work_on(tmp_path: Path) -> None:
    # No shard of share 1 is whole before most of its rows are finished: all of that is in its journal.
    job = make_job(tmp_path, ["p"] * 400, output={"rows_per_shard": 200})
    assert job.run()[0] == 0
    fail_all(job, range(400), 200)
    job = replace(job, setting=Setting(retry_failed=True))
    other = replace(job.share(1, 2), speed=Speed(max_num_seqs=2, step_seconds=0.02))
    job.log.unlink()
    process = other.start()
    wait_for_rows(job, 30)
    assert job.share(0, 2).run()[0] == 0
    done = sum(row >= 200 for row in job.generated())
    assert done < 190 and process.exitcode is None, "it was over before the other one"
    journals = list((job.store / ".run_batch" / "journal").iterdir())
    assert [path.name.split(".")[1] for path in journals] == ["1-of-2"]
    assert [path.name for path in (job.store / ".run_batch" / "claims").iterdir()] == ["1.0"]
    kill_group(process)
    # What is left of an interrupted retry is kept too, whoever else ends meanwhile.
    fail_all(job, range(200), 200)
    assert job.share(0, 2).run()[0] == 0
    assert replace(other, speed=Speed()).run()[0] == 0
    again = [row for row, times in Counter(job.generated()).items() if row >= 200 and times > 1]
    assert len(again) < 40 and job.table()["error"].null_count == 400
    assert not any((job.store / ".run_batch" / "journal").iterdir())


@pytest.mark.parametrize(("kills", "rows"), [(6, 400), pytest.param(100, 16000, marks=pytest.mark.long)])
def test_shares_that_are_killed_at_random_lose_and_double_nothing(tmp_path: Path, kills: int, rows: int) -> None:
    dice = random.Random(kills)
    job = make(tmp_path / "killed", SLOW, rows)
    count, killed = 3, 0
    running: dict[int, BaseProcess] = {}
    while killed < kills and not job.is_complete():
        for index in range(count):
            if index not in running or running[index].exitcode is not None:
                running[index] = job.share(index, count).start()
        time.sleep(dice.uniform(0.1, 0.6))
        victim = running[dice.randrange(count)]
        if victim.exitcode is None:
            kill_group(victim)
            killed += 1
        if killed % 3 == 0:  # a requeue with another number of shares, while some of the old ones still run
            for process in running.values():
                if process.exitcode is None and dice.random() < 0.5:
                    kill_group(process)
            count = dice.choice([2, 3, 4])
    for process in running.values():
        kill_group(process)
    assert finish([job.share(index, 2).start() for index in range(2)], 300) == [0, 0], job.said()[-3000:]
    assert job.is_complete()
    expected = make(tmp_path / "whole", rows=rows)
    assert expected.run(timeout=300)[0] == 0
    assert job.table().to_pylist() == expected.table().to_pylist()
    repeated = len(job.generated()) - len(set(job.generated()))
    print(f"\n{killed} kills of shares over {rows} rows: {repeated} rows generated more than once")
