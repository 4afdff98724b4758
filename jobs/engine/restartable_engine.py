"""An engine that is watched at each step, ended when a step hangs, and can be started again when it has died."""

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterable

from run_batch.jobs.engine.running_rows import RunningRows
from run_batch.jobs.engine.vllm_engine import Engine, EngineDied
from run_batch.jobs.engine.watchdog import Watchdog
from run_batch.jobs.job.errors import EXIT_RUN_FAILED, RunError, run_failed, storage_errors
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

    def __init__(self, start: Callable[[], Engine], step_seconds: float, stop: StopRequest) -> None:
        """Start the first engine.

        Args:
            start: starts an engine.
            step_seconds: a step that takes longer counts as a death; 0 for no limit.
            stop: told while an engine is started again.

        Raises:
            JobError, RunError: what `start` raises.
        """
        self._start = start
        self._stop = stop
        self._engine: Engine | None = start()
        self.max_num_seqs = self._engine.max_num_seqs
        self.finished = 0
        self.record: RunningRows | None = None
        self.save: Callable[[], None] = lambda: None
        self._watchdog = Watchdog(step_seconds, self._end_hanging_step)

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
            with self._watchdog.watching():
                finished = self._engine.step()
        except EngineDied as death:
            if self._watchdog.fired:
                raise EngineDied(f"no progress for {self._watchdog.seconds:g} s") from death
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
                self._engine = self._start()
                return
            except RunError as error:
                if attempt == _STARTS:
                    raise run_failed(f"the engine died and could not be started again: {error}", error) from error
                time.sleep(_SECONDS_BETWEEN_STARTS * attempt)
            finally:
                self._stop.loading = False

    def close(self) -> None:
        """End the engine and its watchdog, and remove the record: the engine has not died."""
        self._watchdog.close()
        if self.record is not None:
            with contextlib.suppress(OSError):  # a record that stays costs the next run some restarts at most
                self.record.close()
        if self._engine is not None:
            self._engine.close()

    def _strike_out(self, rows: Iterable[int]) -> None:
        if self.record is not None:
            with storage_errors(_WHAT_FAILED):
                for row in rows:
                    self.record.remove(row)

    def _end_hanging_step(self) -> None:
        """Kill the engine's processes; this process, where the engine has none. Called in the watchdog's thread."""
        if self._engine is not None and self._engine.kill():
            return
        try:
            self.save()
        finally:
            print(
                f"run-batch: the engine has made no progress for {self._watchdog.seconds:g} s "
                "(errors.step_seconds); finished rows are saved, run the same command again to go on",
                file=sys.stderr,
                flush=True,
            )
            os._exit(EXIT_RUN_FAILED)
