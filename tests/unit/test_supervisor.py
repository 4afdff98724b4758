"""What the supervisor makes of an engine, without processes."""

import os
from pathlib import Path
from typing import Any

import pytest

from run_batch.jobs.engine import OwnBug
from run_batch.jobs.errors import RunError
from run_batch.jobs.generation import Generation
from run_batch.jobs.interrupt import StopRequest
from run_batch.jobs.mapped import MappedRow
from run_batch.jobs.running import RunningRows
from run_batch.jobs.supervisor import Supervisor
from run_batch.jobs.suspects import Suspects


class FakeEngine:
    """Finishes what it holds at each step, unless it is told to raise."""

    max_num_seqs = 2

    def __init__(self) -> None:
        self.rows: list[int] = []
        self.raises: Exception | None = None

    def add(self, mapped: MappedRow) -> None:
        self.rows.append(mapped.row)

    def step(self) -> list[Generation]:
        if self.raises is not None:
            raise self.raises
        rows, self.rows = self.rows, []
        return [Generation(row, ("text",), "stop", 1, 1) for row in rows]

    def close(self) -> None:
        pass


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
