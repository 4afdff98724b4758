"""An engine without processes and without vLLM, for the supervisor."""

from collections.abc import Callable
from typing import Any

from run_batch.jobs.engine.vllm_engine import EngineDied
from run_batch.jobs.job.errors import RunError
from run_batch.jobs.job.rows import Generation, MappedRow, RowFailure


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

    def forget_rows(self) -> bool:
        return True

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
