"""Restarts an engine that dies or hangs, with the rows that were in it, and finds the rows that kill it.

To the pipeline this looks like an engine that never dies: rows go in, and every row comes out as a Generation or a
RowFailure. A row that kills the engine each time is found (see suspects.py) and fails with `engine_died`. What no row
causes ends the run instead: an engine that does not start, or that dies of every row (see first_deaths.py).
"""

import contextlib
import time
from collections.abc import Callable, Sequence

from run_batch.jobs.engine.engine_feed import ROWS_IN_ENGINE, EngineFeed
from run_batch.jobs.engine.first_deaths import FirstDeaths
from run_batch.jobs.engine.restartable_engine import RestartableEngine
from run_batch.jobs.engine.row_places import Place, RowPlaces
from run_batch.jobs.engine.running_rows import RunningRows
from run_batch.jobs.engine.suspects import Suspects
from run_batch.jobs.engine.vllm_engine import Engine, EngineDied
from run_batch.jobs.job.errors import JobError, RunError, storage_errors
from run_batch.jobs.job.rows import MappedRow, RowFailure, RowResult
from run_batch.jobs.machine.stop_signals import StopRequest
from run_batch.jobs.watch.run_messages import say

# After this many blamed rows in succession, with no row finished in between, the rows are not the cause.
_BLAMED_IN_SUCCESSION = 8
_WHAT_FAILED = "what is known of rows that kill the engine cannot be written down"


class Supervisor:
    """Gives rows to the engine, and decides after a death which of them run again, with which others, and which fail.

    Attributes:
        max_num_seqs: rows that the engine runs at once.
    """

    def __init__(
        self, start: Callable[[], Engine], step_seconds: float, stop: StopRequest, start_seconds: float = 0.0
    ) -> None:
        """Start the first engine.

        Args:
            start: starts an engine; what it raises, this raises too.
            step_seconds: a step that takes longer counts as a death; 0 for no limit.
            stop: an engine that dies after a request to stop is not started again.
            start_seconds: a start that takes longer ends the process; 0 for no limit.
        """
        self._engine = RestartableEngine(start, step_seconds, stop, start_seconds)
        self.max_num_seqs = self._engine.max_num_seqs
        self._suspects, self._places, self._first_deaths = Suspects(), RowPlaces(), FirstDeaths()
        self._feed = EngineFeed(self._engine, self._places, self._suspects, self._first_deaths)
        self._input_ended = False

    def remember(self, suspects: Suspects, record: RunningRows, save: Callable[[], None], works: bool = False) -> None:
        """Set what outlives this process; called before the first row is added.

        Args:
            suspects: what earlier processes found out about rows that kill the engine.
            record: the file that tells the next process which rows are in the engine.
            save: makes finished rows durable, from any thread; called before a hanging engine ends this process.
            works: earlier processes have generated rows of the job, so the model does not fail on every row.
        """
        self._suspects = self._feed.suspects = suspects
        self._engine.record, self._engine.save = record, save
        self._first_deaths.works = works

    @property
    def unfinished(self) -> int:
        """Rows added and not yet given back."""
        return len(self._places)

    @property
    def running(self) -> int:
        """Rows that run in the engine, not counting those that wait in it."""
        return self._engine.running

    @property
    def wants_rows(self) -> bool:
        """Whether the engine has room for more rows."""
        return self._places.count(Place.WAITING, Place.IN_ENGINE) < ROWS_IN_ENGINE * self.max_num_seqs

    @property
    def is_busy(self) -> bool:
        """Whether a step has rows to run now."""
        return self._places.count(Place.WAITING, Place.IN_ENGINE) > 0

    def add(self, row: MappedRow | RowFailure) -> RowFailure | None:
        """Take one row; one that has failed already, or that vLLM refuses at once, is given back as its failure.

        Raises:
            JobError: the code of a plugin fails whatever row it gets.
            RunError: the engine dies of every row or does not start again, or the output folder cannot be written to.
        """
        if isinstance(row, RowFailure):
            self._suspects.clear(row.row)
            return row
        if row.row in self._suspects.blamed:
            self._blame(row.row)
        elif self._suspects.is_suspect(row.row):
            self._places.put(row, Place.SUSPECT)
        elif self._suspects.groups or self._places.count(Place.WAITING) or self._first_deaths.probe is not None:
            self._places.put(row, Place.WAITING)
        else:
            try:
                return self._feed.add(row)
            except EngineDied as death:
                self._recover(death)
        return None

    def end_input(self) -> None:
        """Tell that no more rows will be added."""
        self._input_ended = True

    def step(self) -> list[RowResult]:
        """Run the model once; the rows that this finished. After a death: none, and a new engine is started.

        Raises:
            OwnBug, JobError, RunError: see `add` and Engine.step.
        """
        finished: list[RowResult] = []
        try:
            self._feed.fill(self._input_ended)
            if self._places.count(Place.IN_ENGINE):
                finished += self._engine.step()
        except EngineDied as death:
            self._recover(death)
        if finished:
            self._first_deaths.finished_a_row()
        for result in finished:
            self._places.remove(result.row)
            self._suspects.clear(result.row)
        finished += self._places.take_failures(Place.REFUSED)
        # Blamed rows fail once the engine has been seen to live without them.
        if finished or (self._input_ended and not self._places.count(Place.WAITING, Place.IN_ENGINE, Place.SUSPECT)):
            for failure in self._places.take_failures(Place.BLAMED):
                self._suspects.clear(failure.row)
                finished.append(failure)
        return finished

    def close(self) -> None:
        """End the engine, and save what is known of rows that kill it."""
        with contextlib.suppress(OSError):  # costs the next run some restarts at most
            self._suspects.save()
        self._engine.close()

    def _recover(self, death: EngineDied) -> None:
        """Decide where the rows go that were in the dead engine, and start another one."""
        if self._engine.is_stopped_by_signal():
            return
        rows = self._places.mapped_rows(Place.IN_ENGINE)
        say(f"the engine died ({death}), {len(rows)} rows were in it")
        self._end_if_it_dies_of_every_row(death, rows)
        with storage_errors(_WHAT_FAILED):
            blamed = self._suspects.died([row.row for row in rows])
        self._engine.discard(row.row for row in rows)
        for row in rows:
            if row.row == blamed:
                say(f"row {row.row} kills the engine each time, alone: it is set aside")
                self._blame(row.row, death)
            else:
                self._places.put(row, Place.SUSPECT if self._suspects.is_suspect(row.row) else Place.WAITING)
        self._first_deaths.choose_probe([row.row for row in self._places.mapped_rows(Place.WAITING)])
        then = time.monotonic()
        self._engine.restart()
        say(f"the engine runs again, after {time.monotonic() - then:.1f} s")

    def _end_if_it_dies_of_every_row(self, death: EngineDied, rows: Sequence[MappedRow]) -> None:
        try:
            self._first_deaths.died(death, [row.row for row in rows])
        except (JobError, RunError):
            with storage_errors(_WHAT_FAILED):
                self._suspects.forget()
            self._engine.discard(row.row for row in rows)
            raise

    def _blame(self, row: int, death: EngineDied | None = None) -> None:
        """Let a row fail; the death is not known where an earlier process has blamed it."""
        why = f": {death}" if death is not None else ""
        failure = RowFailure.of(row, "engine_died", f"the engine dies each time that it runs this row, alone{why}")
        self._places.put(failure, Place.BLAMED)
        if (count := self._places.count(Place.BLAMED)) > _BLAMED_IN_SUCCESSION:
            with storage_errors(_WHAT_FAILED):
                self._suspects.forget()
            raise _dies_of_every_row(count, why)


def _dies_of_every_row(count: int, why: str) -> RunError:
    return RunError(
        f"the engine dies whatever row it gets: {count} in succession, each of them alone{why}. That is not the rows' "
        "fault: find the cause with --verbose, and run the same command again"
    )
