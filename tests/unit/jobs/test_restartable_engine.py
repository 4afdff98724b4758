"""Engines that die or hang: when another one is started, and what ends the run."""

import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from fake_engine import Engines, FakeEngine

from run_batch.jobs.engine import engine_deadlines
from run_batch.jobs.engine.running_rows import read_running
from run_batch.jobs.engine.supervisor import Supervisor
from run_batch.jobs.engine.vllm_engine import EngineDied
from run_batch.jobs.job.errors import EXIT_RUN_FAILED, RunError
from run_batch.jobs.job.rows import MappedRow
from run_batch.jobs.machine import watchdog
from run_batch.jobs.machine.stop_signals import StopRequest

ROW = MappedRow(0, None, {})


@pytest.fixture(autouse=True)
def _no_sleep(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)


def test_an_engine_that_a_signal_to_the_run_has_killed_is_not_started_again() -> None:
    engines, stop = Engines(), StopRequest()
    supervisor = Supervisor(engines, 0, stop)
    supervisor.add(ROW)
    engines.started[0].raises = EngineDied("of a signal")
    stop.requested = True
    assert supervisor.step() == [] and supervisor.unfinished == 1
    assert len(engines.started) == 1


def test_a_signal_while_a_dead_engine_is_started_again_interrupts_the_load() -> None:
    stop, loading = StopRequest(), []

    def start() -> Any:
        loading.append(stop.loading)
        return FakeEngine(poison=0)

    supervisor = Supervisor(start, 0, stop)
    stop.loading = False
    supervisor.add(ROW)
    supervisor.step()
    assert loading == [True, True] and not stop.loading


@pytest.mark.parametrize("fails", [2, 3])
def test_a_dead_engine_is_started_again_in_three_attempts_at_most(fails: int) -> None:
    engines = Engines()
    supervisor = Supervisor(engines, 0, StopRequest())
    supervisor.add(ROW)
    engines.started[0].raises = EngineDied("of something")
    engines.fails = fails
    if fails == 3:
        with pytest.raises(RunError, match="could not be started again: no memory"):
            supervisor.step()
        supervisor.close()
    else:
        assert supervisor.step() == [], "the new engine has not run yet"
        assert [result.row for result in supervisor.step()] == [0]


def test_an_engine_that_takes_long_to_start_says_so_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(engine_deadlines, "_TELL_SECONDS", 0.2)
    monkeypatch.setattr(watchdog, "_LONGEST_TICK", 0.05)
    told, say = threading.Semaphore(0), engine_deadlines.say
    monkeypatch.setattr(engine_deadlines, "say", lambda text: (say(text), told.release()))
    seconds = []

    def start() -> Any:
        for _ in range(3):
            assert told.acquire(timeout=30)
            seconds.append(time.monotonic())
        return FakeEngine()

    Supervisor(start, 0, StopRequest(), start_seconds=100)
    assert capsys.readouterr().err.count("the engine is starting, for 0 min so far") == 3
    assert seconds[2] - seconds[1] > 0.1, "it says so each time it is looked at"


HANGING_START = """
import time
from run_batch.jobs.engine.supervisor import Supervisor
from run_batch.jobs.engine.vllm_engine import EngineDied
from run_batch.jobs.job.rows import MappedRow
from run_batch.jobs.machine.stop_signals import StopRequest

class DyingEngine:
    max_num_seqs = 2
    add = lambda self, row: None
    discard = lambda self: None

    def step(self):
        raise EngineDied("of something")

engines = [DyingEngine()]
supervisor = Supervisor(lambda: engines.pop() if engines else time.sleep(1000), 0, StopRequest(), 0.3)
supervisor.add(MappedRow(5, None, {}))
supervisor.step()
"""


def test_an_engine_that_is_not_started_again_in_time_ends_the_process() -> None:
    done = subprocess.run([sys.executable, "-c", HANGING_START], capture_output=True, text=True, timeout=100)
    assert done.returncode == EXIT_RUN_FAILED, done.stderr
    assert "the engine has not started within 0.3 s (errors.start_seconds)" in done.stderr


HANGING_RUN = """
import sys, time
from pathlib import Path
from run_batch.jobs.engine.running_rows import RunningRows
from run_batch.jobs.engine.supervisor import Supervisor
from run_batch.jobs.engine.suspects import Suspects
from run_batch.jobs.job.rows import MappedRow
from run_batch.jobs.machine.stop_signals import StopRequest

class HangingEngine:
    max_num_seqs = 2
    add = lambda self, row: None
    step = lambda self: time.sleep(60)
    kill = lambda self: False  # it has no process of its own

supervisor = Supervisor(HangingEngine, 0.05, StopRequest())
supervisor.remember(Suspects(), RunningRows(Path(sys.argv[1]), 8), lambda: print("saved", flush=True))
supervisor.add(MappedRow(5, None, {}))
supervisor.step()
"""


def test_an_engine_that_hangs_in_this_process_ends_it_with_finished_rows_saved(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HANGING_RUN, str(tmp_path / "running")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50)
    assert (done.returncode, done.stdout) == (EXIT_RUN_FAILED, "saved\n"), done.stderr
    assert "no progress for 0.05 s (errors.step_seconds)" in done.stderr
    assert read_running(tmp_path / "running") == [5], "the next run would not know which row it was"
