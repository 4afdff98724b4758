"""kill -9 of engines, of what starts them and of what they start: nothing is lost, nothing is left running."""

import random
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest
from running_engines import BRISK, TWO, all_of, engines, guards, kill, make, note, texts, wait_until, wait_until_gone
from stand_ins import Speed
from standing import make_job

from run_batch.jobs.engine.running_rows import read_running


@pytest.mark.parametrize(
    "victims", ["engine", "parent and engines", "guard, then parent", pytest.param("parent", marks=pytest.mark.long)]
)
def test_nothing_that_a_killed_process_has_started_is_left_running(tmp_path: Path, victims: str) -> None:
    # Both engines hang, and what hangs notices nothing.
    rows = ["hang" if row % 50 == 0 else "p" for row in range(100)]
    job = replace(make_job(tmp_path, rows, output={"rows_per_shard": 10}), setting=TWO)
    process = job.start()
    wait_until(lambda: all(read_running(note(job, index)) for index in range(2)))
    everything, found, (guard,) = all_of(process), engines(process), guards(process)
    below = found[0].children(recursive=True)
    assert len(below) >= 2, "a worker, and what hangs"
    if victims == "engine":
        found[0].kill()
        wait_until_gone([found[0], *below])
        wait_until(lambda: any(engine not in found for engine in engines(process)))
        everything = all_of(process)
    if victims == "guard, then parent":
        guard.kill()
        wait_until(lambda: guards(process) not in ([], [guard]))
        everything = all_of(process)
    everything[0].kill()
    for engine in found if victims == "parent and engines" else ():
        kill(engine)
    wait_until_gone(everything)
    process.join(5)
    code, said = replace(job, speed=Speed(tame=True)).run()
    assert code == 0 and job.table()["text"].to_pylist() == [f"text of {row}" for row in rows], said


@pytest.mark.parametrize(("kills", "rows"), [(10, 700), pytest.param(100, 12000, marks=pytest.mark.long)])
def test_engines_that_are_killed_at_random_lose_and_double_nothing(tmp_path: Path, kills: int, rows: int) -> None:
    dice = random.Random(kills)
    job = make(tmp_path, BRISK, rows)
    process = job.start()
    killed = 0
    while killed < kills:
        time.sleep(dice.uniform(0.0, 0.4))
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
    assert repeated <= kills * 2 * (16 + 8 / 2.5 / BRISK.step_seconds)
