"""An engine that is watched at each step, ended when a step hangs, and can be started again when it has died."""

import contextlib
import functools
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager

from run_batch.jobs.engine.running_rows import RunningRows
from run_batch.jobs.engine.vllm_engine import Engine, EngineDied
from run_batch.jobs.job.errors import EXIT_RUN_FAILED, RunError, storage_errors
from run_batch.jobs.job.rows import MappedRow, RowFailure, RowResult
from run_batch.jobs.machine.last_words import end_process, say
from run_batch.jobs.machine.stop_signals import StopRequest
from run_batch.jobs.machine.watchdog import WATCHDOG, Watch

# Ctrl-C and Slurm signal the processes of the engine, too: these may end before this process has handled its signal.
_SECONDS_FOR_A_SIGNAL = 0.2
_STARTS = 3
_SECONDS_BETWEEN_STARTS = 2.0
# While an engine starts, a line says so this often.
_TELL_SECONDS = 60.0
# A killed process is dead within a second, unless it hangs in the kernel.
_DEATH_SECONDS = 30.0
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
        self,
        start: Callable[[], Engine],
        step_seconds: float,
        stop: StopRequest,
        start_seconds: float = 0.0,
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
        self._step_seconds, self._start_seconds = step_seconds, start_seconds
        self._stepping = Watch(step_seconds, self._end_hanging_step, on_wait=self._end_undead)
        self._step_hangs = False
        self._told = 0
        self._engine: Engine | None = None
        self.record: RunningRows | None = None
        self.save: Callable[[], None] = lambda: None
        with self._watching("start"):
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
        self._step_hangs = False
        try:
            with WATCHDOG.watching(self._stepping):
                finished = self._engine.step()
        except EngineDied as death:
            if self._step_hangs:
                raise EngineDied(f"no progress for {self._step_seconds:g} s") from death
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
        with self._watching("end"):
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
                with self._watching("start"):
                    self._engine = self._start()
                return
            except RunError as error:
                if attempt == _STARTS:
                    raise RunError(f"the engine died and could not be started again: {error}") from error
                time.sleep(_SECONDS_BETWEEN_STARTS * attempt)
            finally:
                self._stop.loading = False

    def close(self) -> None:
        """End the engine, and remove the record: the engine has not died."""
        if self.record is not None:
            with contextlib.suppress(OSError):  # a record that stays costs the next run some restarts at most
                self.record.close()
        if self._engine is not None:
            with self._watching("end"):
                self._engine.close()

    def _strike_out(self, rows: Iterable[int]) -> None:
        if self.record is not None:
            with storage_errors(_WHAT_FAILED):
                for row in rows:
                    self.record.remove(row)

    def _watching(self, what: str) -> AbstractContextManager[None]:
        """Watch the `start` or the `end` of an engine."""

        def end(waited: float) -> None:
            end_process(
                EXIT_RUN_FAILED,
                f"the engine has not {what}ed within {self._start_seconds:g} s (errors.start_seconds). See what it "
                "waits for with --verbose: a file system, a GPU, another process. Then run the same command again, "
                "with a larger errors.start_seconds if it only needs more time",
                self.save,
            )

        return WATCHDOG.watching(Watch(self._start_seconds, end, on_wait=functools.partial(self._tell, what)))

    def _tell(self, what: str, waited: float) -> None:
        """Say now and then that an engine still starts or ends."""
        told, self._told = self._told, int(waited // _TELL_SECONDS)
        if self._told > told:
            say(f"the engine is {what}ing, for {waited / 60:.0f} min so far")

    def _end_hanging_step(self, waited: float) -> None:
        """Kill the engine's processes; this process, where the engine has none. Called in the watchdog's thread."""
        self._step_hangs = True
        if self._engine is None or not self._engine.kill():
            self._end_process()

    def _end_undead(self, waited: float) -> None:
        """End this process where the engine's has been killed and does not die: it hangs in the kernel."""
        if self._step_hangs and waited > self._step_seconds + _DEATH_SECONDS:
            self._end_process()

    def _end_process(self) -> None:
        end_process(
            EXIT_RUN_FAILED,
            f"the engine has made no progress for {self._step_seconds:g} s (errors.step_seconds); finished rows are "
            "saved, run the same command again to go on",
            self.save,
        )
