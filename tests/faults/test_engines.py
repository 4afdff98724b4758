"""Several engines of one machine as one run: one summary, one exit code, and whatever befalls them, the rows of one."""

import json
import os
import random
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import psutil
import pytest
from stand_ins import Setting, Speed
from standing import StandingJob, make_job, wait_for_rows

from run_batch.jobs.engine.running_rows import read_running
from run_batch.jobs.job.config import load_config
from run_batch.jobs.watch.status import read_status

ROWS = 300
SLOW = Speed(step_seconds=0.05)
TWO = Setting(gpus=("0", "GPU-b"), rows_ahead=16)


def prompts(count: int) -> list[str]:
    return ["bad" if i % 37 == 5 else f"prompt {i}" for i in range(count)]


def make(folder: Path, speed: Speed | None = None, rows: int = ROWS, **tables: Any) -> StandingJob:
    tables = {"output": {"rows_per_shard": 10}, **tables}
    return replace(make_job(folder, prompts(rows), speed, **tables), setting=TWO)


def texts(rows: int) -> list[str | None]:
    return [None if prompt == "bad" else f"text of {prompt}" for prompt in prompts(rows)]


def engines(process: BaseProcess) -> list[psutil.Process]:
    """The processes of a run's engines."""
    try:
        below = psutil.Process(process.pid).children()
        return [child for child in below if not any("guard.py" in word for word in child.cmdline())]
    except psutil.NoSuchProcess:
        return []


def all_of(process: BaseProcess) -> list[psutil.Process]:
    """All processes of a run: itself, its guard, the engines with their workers."""
    try:
        parent = psutil.Process(process.pid)
        return [parent, *parent.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def wait_until_gone(processes: list[psutil.Process], seconds: float = 5) -> None:
    _, alive = psutil.wait_procs([p for p in processes if is_alive(p)], seconds)
    assert not [process for process in alive if is_alive(process)], "still running"


def is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_for_engines(process: BaseProcess, count: int) -> list[psutil.Process]:
    wait_until(lambda: len(engines(process)) >= count)
    return engines(process)


def note(job: StandingJob, engine: int) -> Path:
    """Where an engine of two notes the rows that it runs."""
    label = f"{engine}-of-2"
    return job.store / ".run_batch" / "shares" / label / f"running-{label}"


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def kill(process: psutil.Process) -> None:
    if is_alive(process):
        process.kill()


def leases(job: StandingJob) -> list[Path]:
    return list((job.store / ".run_batch").rglob("lease-*"))


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


def test_each_engine_has_cores_of_its_own_and_ends_with_the_run(tmp_path: Path) -> None:
    job = make(tmp_path, SLOW)
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
    job = make(tmp_path, SLOW)
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
    job = make(tmp_path, Speed(step_seconds=3.0))
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
    job = make(tmp_path, SLOW)
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
        assert said.count("15 of 100 rows failed") == (code == 3)


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
    job = make(tmp_path, SLOW)
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
    job = make(tmp_path, SLOW)
    processes = [job.share(index, 2).start() for index in range(2)]
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0], job.said()
    assert job.is_complete() and job.table()["text"].to_pylist() == texts(ROWS)
    shares = {path.name for path in (job.store / ".run_batch" / "shares").iterdir()}
    assert shares == {f"{index}-of-4" for index in range(4)}
    assert job.said().count(" rows done, ") == 2


@pytest.mark.parametrize("victims", ["parent", "parent and engines", "guard, then parent", "engine"])
def test_nothing_that_a_killed_process_has_started_is_left_running(tmp_path: Path, victims: str) -> None:
    # Both engines hang, and what hangs notices nothing.
    rows = ["hang" if row % 50 == 0 else "p" for row in range(100)]
    job = replace(make_job(tmp_path, rows, output={"rows_per_shard": 10}), setting=TWO)
    process = job.start()
    wait_until(lambda: all(read_running(note(job, index)) for index in range(2)))
    everything, found = all_of(process), engines(process)
    guard = next(each for each in everything if any("guard.py" in word for word in each.cmdline()))
    below = found[0].children(recursive=True)
    assert len(below) >= 2, "a worker, and what hangs"
    if victims == "engine":
        found[0].kill()
        wait_until_gone([found[0], *below])
        wait_until(lambda: any(engine not in found for engine in engines(process)))
        everything = all_of(process)
    if victims == "guard, then parent":
        guard.kill()
        wait_until_gone([guard])
    everything[0].kill()
    for engine in found if victims == "parent and engines" else ():
        kill(engine)
    wait_until_gone(everything)
    process.join(5)
    code, said = replace(job, speed=Speed(tame=True)).run()
    assert code == 0 and job.table()["text"].to_pylist() == [f"text of {row}" for row in rows], said


@pytest.mark.parametrize(("kills", "rows"), [(10, 1000), pytest.param(100, 12000, marks=pytest.mark.long)])
def test_engines_that_are_killed_at_random_lose_and_double_nothing(tmp_path: Path, kills: int, rows: int) -> None:
    dice = random.Random(kills)
    job = make(tmp_path, Speed(step_seconds=0.03), rows)
    process = job.start()
    killed = 0
    while killed < kills:
        time.sleep(dice.uniform(0.0, 0.6))
        if process.exitcode is not None:
            assert process.exitcode in (-signal.SIGKILL, 1), f"over after {killed} kills: {job.said()}"
            process = job.start()
            continue
        everything = all_of(process)
        parent, found = everything[:1], engines(process)
        workers = [each for each in everything if each not in [*parent, *found]]
        victim = dice.choice(["parent", "engine", "worker", "all"])
        chosen = {"parent": parent, "engine": found, "worker": workers, "all": everything}[victim]
        for each in chosen if victim == "all" else dice.sample(chosen, min(1, len(chosen))):
            kill(each)
        killed += 1
        if victim in ("parent", "all"):
            process.join(5)
            wait_until_gone(everything)
    process.join(120)
    code = process.exitcode if process.exitcode == 0 else replace(job, speed=Speed()).run(300)[0]
    assert code == 0, job.said()[-3000:]
    assert job.table()["text"].to_pylist() == texts(rows)
    repeated = len(job.generated()) - len(set(job.generated()))
    print(f"\n{killed} kills over {rows} rows: {repeated} rows generated more than once")
    # What was in two engines, and up to a second of their rows, is generated again after a kill.
    assert repeated <= kills * 2 * (16 + 8 / 2.5 / 0.03)
