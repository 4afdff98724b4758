"""Which rows the engine runs, in which order, and what comes of them when it dies."""

import os
from collections import deque
from pathlib import Path

import pytest
from fake_engine import Engines, FakeEngine

from run_batch.jobs.engine.running_rows import RunningRows, read_running
from run_batch.jobs.engine.supervisor import Supervisor
from run_batch.jobs.engine.suspects import Suspects
from run_batch.jobs.engine.vllm_engine import OwnBug
from run_batch.jobs.job.errors import RunError
from run_batch.jobs.job.rows import MappedRow, RowFailure, RowResult
from run_batch.jobs.machine.stop_signals import StopRequest
from run_batch.model.failure_reports import Fault, Report


@pytest.fixture(autouse=True)
def _no_sleep(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)


def row(index: int) -> MappedRow:
    return MappedRow(index, None, {})


def supervised(record: Path) -> tuple[Supervisor, FakeEngine, RunningRows]:
    engines = Engines()
    supervisor = Supervisor(engines, 0, StopRequest())
    running = RunningRows(record, 8)
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
def test_storage_that_does_not_take_the_record_of_running_rows_ends_the_run_with_a_message(
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
    engines.started[0].raises = OwnBug(Report(Fault.OWN_BUG, "KeyError", "KeyError", False, "Traceback"))
    with pytest.raises(OwnBug):
        supervisor.step()
    assert len(engines.started) == 1


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
