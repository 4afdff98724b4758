"""What the supervisor makes of an engine, without processes."""

import os
from collections import deque
from pathlib import Path
from typing import Any

import pytest

from run_batch.jobs.engine.running_rows import RunningRows
from run_batch.jobs.engine.supervisor import Supervisor
from run_batch.jobs.engine.suspects import Suspects
from run_batch.jobs.engine.vllm_engine import EngineDied, OwnBug
from run_batch.jobs.job.errors import RunError
from run_batch.jobs.job.rows import Generation, MappedRow
from run_batch.jobs.machine.stop_signals import StopRequest


class FakeEngine:
    """Finishes the first row that it holds at each step, unless it is told to raise, or runs a row that it dies of.

    Attributes:
        steps: the rows that were in it at each step.
    """

    max_num_seqs = 2

    def __init__(self, poison: int = -1) -> None:
        self.steps: list[list[int]] = []
        self.raises: Exception | None = None
        self._rows: list[int] = []
        self._poison = poison

    def add(self, mapped: MappedRow) -> None:
        self._rows.append(mapped.row)

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


def supervised(note: Path) -> tuple[Supervisor, FakeEngine, RunningRows]:
    engine: Any = FakeEngine()
    supervisor = Supervisor(lambda: engine, 0, StopRequest())
    running = RunningRows(note, 8)
    supervisor.remember(Suspects(), running, lambda: None)
    return supervisor, engine, running


@pytest.mark.parametrize("when", ["a row is added", "a row is finished"])
def test_storage_that_does_not_take_the_note_of_running_rows_ends_the_run_with_a_message(
    tmp_path: Path, when: str
) -> None:
    supervisor, _, running = supervised(tmp_path / "running")
    if when == "a row is finished":
        supervisor.add(MappedRow(0, None, {}))
    read_only = os.open(tmp_path / "running", os.O_RDONLY)
    os.dup2(read_only, running._file)
    with pytest.raises(RunError, match=r"cannot be written down: .*run the same command again"):
        if when == "a row is added":
            supervisor.add(MappedRow(0, None, {}))
        else:
            supervisor.step()
    supervisor.close()


def test_a_bug_in_a_process_of_the_engine_starts_no_other_engine(tmp_path: Path) -> None:
    supervisor, engine, _ = supervised(tmp_path / "running")
    supervisor.add(MappedRow(0, None, {}))
    engine.raises = OwnBug("Traceback of the engine's process")
    with pytest.raises(OwnBug):
        supervisor.step()
    assert supervisor.restarts == 0
    supervisor.close()


def test_suspects_run_without_others_and_after_the_engine_has_shown_that_it_lives(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    engines: list[Any] = []

    def start() -> Any:
        engines.append(FakeEngine(poison=100))
        return engines[-1]

    supervisor = Supervisor(start, 0, StopRequest())
    rows, finished = deque(range(1000)), set()
    while rows or supervisor.unfinished:
        while rows and supervisor.wants_rows:
            supervisor.add(MappedRow(rows.popleft(), None, {}))
        if not rows:
            supervisor.end_input()
        finished |= {result.row for result in supervisor.step()}
    assert finished == set(range(1000))
    first, second, *later = engines
    suspects = {*first.steps[-1]} & {*second.steps[-1]}
    assert 100 in suspects and len(suspects) > 1
    for engine in later:
        alone = [step for step in engine.steps if suspects.intersection(step)]
        assert all(suspects.issuperset(step) for step in alone), "others would share the blame"
        assert not alone or engine.steps.index(alone[0]) >= 10 * FakeEngine.max_num_seqs, "a row a step"
