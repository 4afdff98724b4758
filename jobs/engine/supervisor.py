"""The engine, whatever happens to it: one that dies or hangs is started again with the rows that were in it.

To the pipeline this looks like an engine that lives: rows go in, every row comes out, as its text or as a failure. A
row that kills the engine each time is found (see suspects.py) and comes out as `engine_died: ...`. What is no row's
fault ends the run instead: an engine that does not start, or that dies of every row.
"""

import contextlib
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator

from run_batch.jobs.engine.running_rows import RunningRows
from run_batch.jobs.engine.suspects import Suspects
from run_batch.jobs.engine.vllm_engine import Engine, EngineDied
from run_batch.jobs.engine.watchdog import Watchdog
from run_batch.jobs.job.errors import EXIT_RUN_FAILED, RunError, storage_failed
from run_batch.jobs.job.rows import Generation, MappedRow, RowFailure, RowResult
from run_batch.jobs.machine.stop_signals import StopRequest

# Rows added to the engine, as a multiple of those it runs at once: the rest wait inside it, so that the next step
# never lacks a row because one has just finished.
ROWS_IN_ENGINE = 2
# Rows that a new engine finishes before suspects run alone, as a multiple of those it runs at once: the more, the less
# likely is it that what kills engines from outside hits a suspect again and again.
_SEATFULS_TO_PROVE = 10
# Ctrl-C and Slurm signal the engine's processes too, and these may be faster.
_SECONDS_FOR_A_SIGNAL = 0.2
_STARTS = 3
_SECONDS_BETWEEN_STARTS = 2.0
# So many rows in succession that kill the engine, and none that it finishes: then it is not the rows.
_BLAMED_IN_SUCCESSION = 8


class Supervisor:
    """Starts engines, one after the other, and knows which rows are in the one that runs.

    Attributes:
        restarts: engines started after a death.
    """

    def __init__(self, start: Callable[[], Engine], step_seconds: float, stop: StopRequest) -> None:
        """Start the first engine.

        Args:
            start: starts an engine.
            step_seconds: a step that takes longer is a death; 0 for no limit.

        Raises:
            JobError, RunError: what `start` raises.
        """
        self._start = start
        self._stop = stop
        self._engine: Engine | None = start()
        self.max_num_seqs = self._engine.max_num_seqs
        self.restarts = 0
        self._suspects = Suspects()
        self._note: RunningRows | None = None
        self._save: Callable[[], None] = lambda: None
        self._running: dict[int, MappedRow] = {}
        self._waiting: deque[MappedRow] = deque()
        self._held: dict[int, MappedRow] = {}
        self._alone: set[int] = set()
        self._verdicts: list[RowFailure] = []
        self._refused: list[RowFailure] = []
        self._input_ended = False
        self._finished = 0  # rows, since the engine was started
        self._watchdog = Watchdog(step_seconds, self._end_hanging_step)

    def remember(self, suspects: Suspects, note: RunningRows, save: Callable[[], None]) -> None:
        """Before the first row.

        Args:
            suspects: what is known from earlier runs.
            note: where the rows in the engine are written down, for a death of this whole process.
            save: makes finished rows durable, from any thread, when this process has to end at once.
        """
        self._suspects, self._note, self._save = suspects, note, save

    @property
    def unfinished(self) -> int:
        """Rows added and not yet given back."""
        return len(self._running) + len(self._waiting) + len(self._held) + len(self._verdicts) + len(self._refused)

    @property
    def running(self) -> int:
        """Rows that have a seat in the engine, as it tells."""
        return self._engine.running if self._engine is not None else 0

    @property
    def wants_rows(self) -> bool:
        """Whether it can take more without hoarding them."""
        return len(self._running) + len(self._waiting) < ROWS_IN_ENGINE * self.max_num_seqs

    @property
    def is_busy(self) -> bool:
        """Whether a step has anything to do now."""
        return bool(self._running or self._waiting)

    def add(self, row: MappedRow | RowFailure) -> RowFailure | None:
        """Take one row; one that failed already, or that vLLM refuses, comes back as its failure."""
        if isinstance(row, RowFailure):
            self._suspects.clear(row.row)
            return row
        if row.row in self._suspects.blamed:
            self._blame(row.row)
        elif self._suspects.held(row.row):
            self._held[row.row] = row
        elif self._alone or self._suspects.groups or self._waiting:
            self._waiting.append(row)
        else:
            return self._add_to_engine(row)
        return None

    def end_input(self) -> None:
        """No more rows will be added."""
        self._input_ended = True

    def step(self) -> list[RowResult]:
        """Run the model once, or start an engine in the place of a dead one; the rows that this finished.

        Raises:
            RunError: the engine dies without any row to blame.
        """
        self._choose_rows()
        finished: list[RowResult] = []
        if self._running:
            finished += self._step_engine()
            for result in finished:
                self._forget(result.row)
            self._finished += len(finished)
        finished += self._refused
        self._refused = []
        # Rows that were found to kill the engine are believed once it has shown that it lives without them.
        if finished or (self._input_ended and not (self._running or self._waiting or self._held)):
            finished += self._verdicts
            for verdict in self._verdicts:
                self._suspects.clear(verdict.row)
            self._verdicts = []
        return finished

    def close(self) -> None:
        """End the engine, in good order: no row is to blame for it."""
        self._watchdog.close()
        if self._note is not None:
            with contextlib.suppress(OSError):  # costs restarts at most
                self._note.close()
                self._suspects.save()
        if self._engine is not None:
            self._engine.close()

    def _step_engine(self) -> list[Generation]:
        assert self._engine is not None
        try:
            with self._watchdog.watching():
                return self._engine.step()
        except EngineDied as death:
            self._recover(death)
            return []

    def _choose_rows(self) -> None:
        """Give the engine rows that wait: suspects alone, a group at a time, all others as they come."""
        self._alone &= self._running.keys()
        if self._alone:
            return
        groups = self._suspects.groups
        if groups and self._is_proven() and (self._input_ended or all(row in self._held for row in groups[0])):
            if self._running:  # the others come out first
                return
            group = [self._held.pop(row) for row in groups[0] if row in self._held]
            self._alone = {row.row for row in group}
            for row in group:
                if self._alone:
                    self._add_now(row)
                else:  # the engine died while it took the row before
                    self._held[row.row] = row
            if not group:  # its rows never came: none of this run's, or they failed while they were mapped
                del groups[0]
            return
        while self._waiting and len(self._running) < ROWS_IN_ENGINE * self.max_num_seqs:
            self._add_now(self._waiting.popleft())

    def _is_proven(self) -> bool:
        """Whether this engine has run other rows for a while. Were suspects always the first to run, engines that are
        killed from outside every few seconds would die of them."""
        others_left = self._running or self._waiting or not self._input_ended
        return not others_left or self._finished >= _SEATFULS_TO_PROVE * self.max_num_seqs

    def _add_now(self, row: MappedRow) -> None:
        failure = self._add_to_engine(row)
        if failure is not None:
            self._refused.append(failure)

    def _add_to_engine(self, row: MappedRow) -> RowFailure | None:
        assert self._engine is not None
        self._running[row.row] = row
        if self._note is not None:
            with _writing_down():
                self._note.add(row.row)
        try:
            failure = self._engine.add(row)
        except EngineDied as death:
            self._recover(death)
            return None
        if failure is not None:
            self._forget(row.row)
        return failure

    def _forget(self, row: int) -> None:
        del self._running[row]
        self._suspects.clear(row)
        if self._note is not None:
            with _writing_down():
                self._note.remove(row)

    def _blame(self, row: int) -> None:
        self._verdicts.append(RowFailure(row, "engine_died", "the engine dies each time that it runs this row, alone"))
        if len(self._verdicts) > _BLAMED_IN_SUCCESSION:
            with _writing_down():
                self._suspects.forget()
            raise RunError(
                f"the engine dies whatever row it gets: {len(self._verdicts)} in succession, each of them alone. That "
                "is not the rows' fault: see what it says with --verbose, mend it, and run the same command again"
            )

    def _recover(self, death: EngineDied) -> None:
        """Start another engine, and sort the rows that were in the dead one."""
        time.sleep(_SECONDS_FOR_A_SIGNAL)
        if self._stop.requested:
            return
        cause = f"no progress for {self._watchdog.seconds:g} s" if self._watchdog.fired else str(death)
        print(f"the engine died ({cause}); starting it again, {len(self._running)} rows were in it", file=sys.stderr)
        rows, self._running = self._running, {}
        with _writing_down():
            blamed = self._suspects.died(list(rows))
            if self._note is not None:
                for index in rows:
                    self._note.remove(index)
        for index, row in rows.items():
            if index == blamed:
                print(f"row {index} kills the engine each time, alone: it is set aside", file=sys.stderr)
                self._blame(index)
            elif self._suspects.held(index):
                self._held[index] = row
            else:
                self._waiting.append(row)
        self._alone = set()
        self._restart()

    def _restart(self) -> None:
        assert self._engine is not None
        self._engine.discard()
        self._engine, self._finished = None, 0
        for attempt in range(1, _STARTS + 1):
            self._stop.loading = True
            try:
                self._engine = self._start()
                self.restarts += 1
                return
            except RunError as error:
                if attempt == _STARTS:
                    raise RunError(f"the engine died and could not be started again: {error}") from error
                time.sleep(_SECONDS_BETWEEN_STARTS * attempt)
            finally:
                self._stop.loading = False

    def _end_hanging_step(self) -> None:
        """In the watchdog's thread."""
        if self._engine is not None and self._engine.kill():
            return
        try:
            self._save()
        finally:
            print(
                f"run-batch: the engine has made no progress for {self._watchdog.seconds:g} s "
                "(errors.step_seconds); finished rows are saved, run the same command again to go on",
                file=sys.stderr,
                flush=True,
            )
            os._exit(EXIT_RUN_FAILED)


@contextlib.contextmanager
def _writing_down() -> Iterator[None]:
    """Raises:
    RunError: the output folder does not take what is to be known of the rows after this process.
    """
    try:
        yield
    except OSError as error:
        raise storage_failed("the rows in the engine cannot be written down", error) from None
