"""An engine that is watched at each step, ended when a step hangs, and can be started again when it has died."""

import contextlib
import time
from collections.abc import Callable, Iterable

from run_batch.jobs.engine.engine_deadlines import EngineDeadlines
from run_batch.jobs.engine.running_rows import RunningRows
from run_batch.jobs.engine.vllm_engine import Engine, EngineDied
from run_batch.jobs.job.errors import RunError, run_failed, storage_errors
from run_batch.jobs.job.rows import MappedRow, RowFailure, RowResult
from run_batch.jobs.machine.stop_signals import StopRequest

# Ctrl-C and Slurm signal the processes of the engine, too: these may end before this process has handled its signal.
_SECONDS_FOR_A_SIGNAL = 0.2
_STARTS = 3
_SECONDS_BETWEEN_STARTS = 2.0
_WHAT_FAILED = "the rows in the engine cannot be written down"


class RestartableEngine:
    """Starts an engine, and another one each time that its owner asks for it, after a death.

    Attributes:
        max_num_seqs: rows that an engine runs at once.
        finished: rows that the engine has finished since it was started.
        record: the file that tells the next process which rows were in the engine when this one died; None for none.
        save: makes finished rows durable, from any thread; called before a hanging engine ends this process.
    """

    def __init__(
        self, start: Callable[[], Engine], step_seconds: float, stop: StopRequest, start_seconds: float = 0.0
    ) -> None:
        """Start the first engine.

        Args:
            start: starts an engine.
            step_seconds: a step that takes longer counts as a death; 0 for no limit.
            stop: told while an engine is started again.
            start_seconds: a start that takes longer ends the process; 0 for no limit.

        Raises:
            JobError, RunError: what `start` raises.
        """
        self._start, self._stop = start, stop
        self._deadlines = EngineDeadlines(step_seconds, start_seconds, self._kill, lambda: self.save())
        self._engine: Engine | None = None
        self.record: RunningRows | None = None
        self.save: Callable[[], None] = lambda: None
        with self._deadlines.start():
            self._engine = start()
        self.max_num_seqs = self._engine.max_num_seqs
        self.finished = 0

    @property
    def running(self) -> int:
        """Rows that run in the engine, not counting those that wait in it."""
        return self._engine.running if self._engine is not None else 0

    def add(self, row: MappedRow) -> RowFailure | None:
        """Queue one row; see Engine.add.

        Raises:
            RunError: also if the record cannot be written.
        """
        assert self._engine is not None
        if self.record is not None:
            with storage_errors(_WHAT_FAILED):
                self.record.add(row.row)
        failure = self._engine.add(row)
        if failure is not None:
            self._strike_out([row.row])
        return failure

    def step(self) -> list[RowResult]:
        """Run the model once; the rows that this finished.

        Raises:
            EngineDied: also if the step took too long.
            RunError: also if the record cannot be written.
            OwnBug: see Engine.step.
        """
        assert self._engine is not None
        try:
            with self._deadlines.step():
                finished = self._engine.step()
        except EngineDied as death:
            if self._deadlines.step_hangs:
                raise EngineDied(f"no progress for {self._deadlines.step_seconds:g} s") from death
            raise
        self.finished += len(finished)
        self._strike_out([result.row for result in finished])
        return finished

    def is_stopped_by_signal(self) -> bool:
        """Whether the engine has died of a signal that asks the whole run to stop; waits a moment for that signal."""
        time.sleep(_SECONDS_FOR_A_SIGNAL)
        return self._stop.requested

    def discard(self, rows: Iterable[int]) -> None:
        """End a dead engine, in which these rows were.

        Raises:
            RunError: the record cannot be written.
        """
        assert self._engine is not None
        self._strike_out(rows)
        with self._deadlines.end():
            self._engine.discard()
        self._engine, self.finished = None, 0

    def restart(self) -> None:
        """Start an engine in the place of a discarded one.

        Raises:
            RunError: it does not start, several times in succession.
        """
        for attempt in range(1, _STARTS + 1):
            self._stop.loading = True
            try:
                with self._deadlines.start():
                    self._engine = self._start()
                return
            except RunError as error:
                if attempt == _STARTS:
                    raise run_failed(f"the engine died and could not be started again: {error}", error) from error
                time.sleep(_SECONDS_BETWEEN_STARTS * attempt)
            finally:
                self._stop.loading = False

    def close(self) -> None:
        """End the engine, and remove the record: the engine has not died."""
        if self.record is not None:
            with contextlib.suppress(OSError):  # a record that stays costs the next run some restarts at most
                self.record.close()
        if self._engine is not None:
            with self._deadlines.end():
                self._engine.close()

    def _strike_out(self, rows: Iterable[int]) -> None:
        if self.record is not None:
            with storage_errors(_WHAT_FAILED):
                for row in rows:
                    self.record.remove(row)

    def _kill(self) -> bool:
        """Kill the engine's processes, from any thread; False where it has none."""
        return self._engine is not None and self._engine.kill()
