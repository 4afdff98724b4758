"""An engine that dies before any row is finished: a row that kills it is told from a model that fails on every row."""

from pathlib import Path

import pytest
from fake_engine import Engines, FakeEngine

from run_batch.jobs.engine.running_rows import RunningRows
from run_batch.jobs.engine.supervisor import Supervisor
from run_batch.jobs.engine.suspects import Suspects
from run_batch.jobs.engine.vllm_engine import EngineDied
from run_batch.jobs.job.errors import JobError, RunError
from run_batch.jobs.job.rows import Generation, MappedRow, RowFailure, RowResult
from run_batch.jobs.machine.stop_signals import StopRequest
from run_batch.model.failure_reports import Fault, Report


@pytest.fixture(autouse=True)
def _no_sleep(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)


class FailingEngine(FakeEngine):
    """Dies of some rows by an exception, whose message tells the number of rows."""

    def __init__(self, poisons: range, in_plugin: bool = True, named: bool = True) -> None:
        super().__init__()
        self.max_num_seqs = 4
        self._poisons, self._in_plugin, self._named = poisons, in_plugin, named

    def step(self) -> list[Generation]:
        if any(row in self._poisons for row in self._rows):
            text = f"ValueError: shape {len(self._rows)} (plug.py, line 7)"
            place = "ValueError (plug.py, line 7)"
            report = Report(Fault.UNKNOWN, text, place, self._in_plugin, "Traceback of it")
            raise EngineDied(text, report if self._named else None)
        return super().step()


def run(engines: Engines, rows: int) -> dict[int, RowResult]:
    supervisor = Supervisor(engines, 0, StopRequest())
    finished: dict[int, RowResult] = {}
    for row in range(rows):
        supervisor.add(MappedRow(row, None, {}))
        while not supervisor.wants_rows:
            finished |= {result.row: result for result in supervisor.step()}
    supervisor.end_input()
    while supervisor.unfinished:
        finished |= {result.row: result for result in supervisor.step()}
    return finished


@pytest.mark.parametrize("rows", [1, 2, 5, 60])
@pytest.mark.parametrize(("in_plugin", "error"), [(True, JobError), (False, RunError)])
def test_a_model_that_fails_on_every_row_ends_the_run_after_three_deaths_and_blames_no_row(
    rows: int, in_plugin: bool, error: type[Exception]
) -> None:
    engines = Engines(lambda: FailingEngine(range(rows), in_plugin))
    with pytest.raises(
        error, match=r"3 times of the same exception: ValueError: shape 1 \(plug\.py, line 7\)"
    ) as caught:
        run(engines, rows)
    assert len(engines.started) == 3 and "Traceback of it" in caught.value.__notes__


@pytest.mark.parametrize("poison", [0, 1, 7, 39])
def test_a_row_that_kills_the_engine_first_is_found_and_its_error_holds_the_exception(poison: int) -> None:
    engines = Engines(lambda: FailingEngine(range(poison, poison + 1)))
    finished = run(engines, 40)
    assert sorted(finished) == list(range(40))
    failed = [result for result in finished.values() if isinstance(result, RowFailure)]
    assert [failure.row for failure in failed] == [poison]
    assert failed[0].kind == "engine_died" and "ValueError: shape 1 (plug.py, line 7)" in failed[0].message


def test_deaths_of_different_exceptions_are_not_added_up() -> None:
    causes = iter(["a", "b", "a", "b", "a", "b", "a"])

    def start() -> FakeEngine:
        engine = FakeEngine()
        cause = next(causes, None)
        if cause is not None:
            engine.raises = EngineDied(cause, Report(Fault.UNKNOWN, cause, cause, True, ""))
        return engine

    # The engine works at last; no row of those that were in it so often is to blame.
    assert {type(result) for result in run(Engines(start), 40).values()} <= {Generation, RowFailure}


def test_deaths_without_an_exception_are_not_taken_for_one() -> None:
    engines = Engines(lambda: FailingEngine(range(60), named=False))
    with pytest.raises(RunError, match="the engine dies whatever row it gets: 9 in succession"):
        run(engines, 60)


def test_once_the_job_has_results_a_row_is_to_blame(tmp_path: Path) -> None:
    supervisor = Supervisor(Engines(lambda: FailingEngine(range(2))), 0, StopRequest())
    record = RunningRows(tmp_path / "running", 8)
    supervisor.remember(Suspects(), record, lambda: None, works=True)
    for row in range(2):
        supervisor.add(MappedRow(row, None, {}))
    supervisor.end_input()
    finished = {}
    while supervisor.unfinished:
        finished |= {result.row: result for result in supervisor.step()}
    assert {type(result) for result in finished.values()} == {RowFailure}
