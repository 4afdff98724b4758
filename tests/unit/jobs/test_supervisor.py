"""What the supervisor makes of an engine, without processes."""

import os
import subprocess
import sys
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from run_batch.jobs.engine.running_rows import RunningRows, read_running
from run_batch.jobs.engine.supervisor import Supervisor
from run_batch.jobs.engine.suspects import Suspects
from run_batch.jobs.engine.vllm_engine import EngineDied, OwnBug
from run_batch.jobs.job.errors import EXIT_RUN_FAILED, RunError
from run_batch.jobs.job.rows import Generation, MappedRow, RowFailure, RowResult
from run_batch.jobs.machine.stop_signals import StopRequest


class FakeEngine:
    """Finishes the first row that it holds at each step, unless it is told to raise, or runs a row that it dies of.

    Attributes:
        steps: the rows that were in it at each step.
        raises: what the next step raises.
        refuses: a row that it does not take.
        dies_of: a row that it dies of when that is added.
    """

    max_num_seqs = 2

    def __init__(self, poison: int = -1) -> None:
        self.steps: list[list[int]] = []
        self.raises: Exception | None = None
        self.refuses = self.dies_of = -1
        self._rows: list[int] = []
        self._poison = poison

    def add(self, mapped: MappedRow) -> RowFailure | None:
        if mapped.row == self.dies_of:
            raise EngineDied("while a row was added")
        if mapped.row == self.refuses:
            return RowFailure(mapped.row, "refused", "")
        self._rows.append(mapped.row)
        return None

    def step(self) -> list[Generation]:
        if self.raises is not None:
            raise self.raises
        self.steps.append(list(self._rows))
        if self._poison in self._rows[: self.max_num_seqs]:
            raise EngineDied("of a row")
        return [Generation(self._rows.pop(0), ("text",), "stop", 1, 1)]

    def close(self) -> None:
        pass

    discard = close


class Engines:
    """Starts engines, and keeps them.

    Attributes:
        started: all of them.
        fails: how many of the next starts fail.
    """

    def __init__(self, make: Callable[[], FakeEngine] = FakeEngine) -> None:
        self.started: list[Any] = []
        self.fails = 0
        self._make = make

    def __call__(self) -> Any:
        if self.fails:
            self.fails -= 1
            raise RunError("no memory")
        self.started.append(self._make())
        return self.started[-1]


@pytest.fixture(autouse=True)
def _no_sleep(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)


def row(index: int) -> MappedRow:
    return MappedRow(index, None, {})


def supervised(note: Path) -> tuple[Supervisor, FakeEngine, RunningRows]:
    engines = Engines()
    supervisor = Supervisor(engines, 0, StopRequest())
    running = RunningRows(note, 8)
    supervisor.remember(Suspects(), running, lambda: None)
    return supervisor, engines.started[0], running


def run_to_end(supervisor: Supervisor) -> dict[int, RowResult]:
    """No more rows are added; those that come out, by row."""
    supervisor.end_input()
    finished: dict[int, RowResult] = {}
    for _ in range(1000):
        if not supervisor.unfinished:
            return finished
        for result in supervisor.step():
            assert result.row not in finished
            finished[result.row] = result
    raise AssertionError(f"{supervisor.unfinished} rows do not come out")


@pytest.mark.parametrize("when", ["a row is added", "a row is finished"])
def test_storage_that_does_not_take_the_note_of_running_rows_ends_the_run_with_a_message(
    tmp_path: Path, when: str
) -> None:
    supervisor, _, running = supervised(tmp_path / "running")
    if when == "a row is finished":
        supervisor.add(row(0))
    read_only = os.open(tmp_path / "running", os.O_RDONLY)
    os.dup2(read_only, running._file)
    with pytest.raises(RunError, match=r"cannot be written down: .*run the same command again"):
        if when == "a row is added":
            supervisor.add(row(0))
        else:
            supervisor.step()
    supervisor.close()


def test_a_bug_in_a_process_of_the_engine_starts_no_other_engine() -> None:
    engines = Engines()
    supervisor = Supervisor(engines, 0, StopRequest())
    supervisor.add(row(0))
    engines.started[0].raises = OwnBug("Traceback of the engine's process")
    with pytest.raises(OwnBug):
        supervisor.step()
    assert len(engines.started) == 1


def test_an_engine_that_a_signal_to_the_run_has_killed_is_not_started_again() -> None:
    engines, stop = Engines(), StopRequest()
    supervisor = Supervisor(engines, 0, stop)
    supervisor.add(row(0))
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
    supervisor.add(row(0))
    supervisor.step()
    assert loading == [True, True] and not stop.loading


@pytest.mark.parametrize("fails", [2, 3])
def test_a_dead_engine_is_started_again_in_three_attempts_at_most(fails: int) -> None:
    engines = Engines()
    supervisor = Supervisor(engines, 0, StopRequest())
    supervisor.add(row(0))
    engines.started[0].raises = EngineDied("of something")
    engines.fails = fails
    if fails == 3:
        with pytest.raises(RunError, match="could not be started again: no memory"):
            supervisor.step()
        supervisor.close()
    else:
        assert supervisor.step() == []
        assert list(run_to_end(supervisor)) == [0] and engines.started[1].steps == [[0]]


def test_all_rows_of_an_engine_that_dies_while_it_takes_one_are_run_by_the_next(tmp_path: Path) -> None:
    supervisor, engine, _ = supervised(tmp_path / "running")
    engine.dies_of = 2
    for index in range(3):
        assert supervisor.add(row(index)) is None
    assert read_running(tmp_path / "running") == [], "in the dead engine"
    supervisor.add(row(3))
    assert supervisor.unfinished == 4
    assert list(run_to_end(supervisor)) == [0, 1, 2, 3]
    assert read_running(tmp_path / "running") == []
    supervisor.close()
    assert read_running(tmp_path / "running") is None


def test_a_row_that_vllm_refuses_fails_whenever_it_is_added(tmp_path: Path) -> None:
    supervisor, engine, running = supervised(tmp_path / "running")
    known = Suspects()
    supervisor.remember(known, running, lambda: None)
    engine.refuses = 1
    failure = RowFailure(1, "refused", "")
    assert supervisor.add(row(1)) == failure and supervisor.unfinished == 0
    for index in (0, 2, 3, 4):
        supervisor.add(row(index))
    known.groups = [[9]]  # from now on, rows wait
    for index in (1, *range(10, 20)):
        assert supervisor.add(row(index)) is None
    assert run_to_end(supervisor)[1] == failure
    assert max(map(len, engine.steps)) == 4, "more than the engine needs"
    assert read_running(tmp_path / "running") == []


def test_a_row_that_was_blamed_before_fails_once_the_engine_has_finished_another(tmp_path: Path) -> None:
    for others in (True, False):
        supervisor, _, running = supervised(tmp_path / "running")
        known = Suspects()
        known.blamed = {7}
        supervisor.remember(known, running, lambda: None)
        assert supervisor.add(row(7)) is None
        assert supervisor.step() == [], "nothing tells that the engine lives"
        if others:
            supervisor.add(row(8))
            assert [result.row for result in supervisor.step()] == [8, 7]
        else:
            assert list(run_to_end(supervisor)) == [7]
        assert not known.blamed


def test_a_group_of_suspects_runs_once_all_of_it_has_come(tmp_path: Path) -> None:
    supervisor, engine, running = supervised(tmp_path / "running")
    known = Suspects()
    known.groups = [[0, 99]]
    supervisor.remember(known, running, lambda: None)
    for index in range(50):
        supervisor.add(row(index))
        supervisor.step()
    assert not any(0 in step for step in engine.steps)
    supervisor.add(row(99))
    while 0 not in engine.steps[-1]:
        assert supervisor.step()
    assert engine.steps[-1] == [0, 99]


def test_suspects_that_do_not_come_hold_up_no_others(tmp_path: Path) -> None:
    supervisor, _, running = supervised(tmp_path / "running")
    known = Suspects()
    known.groups = [[100, 101], [3, 102], [103]]
    supervisor.remember(known, running, lambda: None)
    supervisor.add(RowFailure(103, "bad_row", "it failed while it was mapped"))
    for index in range(5):
        supervisor.add(row(index))
    assert sorted(run_to_end(supervisor)) == list(range(5))
    assert known.groups == [[102]]


def test_suspects_run_without_others_and_after_the_engine_has_shown_that_it_lives() -> None:
    engines = Engines(lambda: FakeEngine(poison=100))
    supervisor = Supervisor(engines, 0, StopRequest())
    rows, finished = deque(range(1000)), set()
    while rows or supervisor.unfinished:
        while rows and supervisor.wants_rows:
            supervisor.add(row(rows.popleft()))
        if not rows:
            supervisor.end_input()
        finished |= {result.row for result in supervisor.step()}
    assert finished == set(range(1000))
    first, second, *later = engines.started
    suspects = {*first.steps[-1]} & {*second.steps[-1]}
    assert 100 in suspects and len(suspects) > 1
    for engine in later:
        alone = [step for step in engine.steps if suspects.intersection(step)]
        assert all(suspects.issuperset(step) for step in alone), "others would share the blame"
        assert not alone or engine.steps.index(alone[0]) >= 10 * FakeEngine.max_num_seqs, "a row a step"


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
