"""Generates the rows of a trial, and measures how long an engine takes that has done so before."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from run_batch.jobs.engine.supervisor import Supervisor
from run_batch.jobs.engine.vllm_engine import BrokenDeclaration, Engine
from run_batch.jobs.job.errors import Interrupted, JobError
from run_batch.jobs.job.errors_table import ErrorsTable
from run_batch.jobs.job.rows import Generation, MappedRow, Pooled, RowFailure, RowResult
from run_batch.jobs.machine.stop_signals import StopRequest

# What an engine does once, with its first rows, hardly counts in a time longer than this: it is not measured again.
_LONG_SECONDS = 60.0


@dataclass(slots=True)
class Generated:
    """Rows that were given to the engine all at once.

    Attributes:
        results: by row.
        seconds: by row, from the start to its end.
        wall_seconds: from the start to the end of the last row.
    """

    results: dict[int, RowResult] = field(default_factory=dict)
    seconds: dict[int, float] = field(default_factory=dict)
    wall_seconds: float = 0.0

    @property
    def successes(self) -> list[Generation | Pooled]:
        """Those that did not fail."""
        return [result for result in self.results.values() if not isinstance(result, RowFailure)]


@dataclass(frozen=True, slots=True)
class TrialRun:
    """An engine's run of some rows.

    Attributes:
        first: what the rows gave.
        steady: the same rows in the engine that had run them already, its caches emptied; `first` where this was not
            measured.
        start_seconds: that the engine took to start.
        rows_at_once: rows that it runs at once, if it has so many.
    """

    first: Generated
    steady: Generated
    start_seconds: float
    rows_at_once: int


def run_rows(start_engine: Callable[[], Engine], rows: Sequence[MappedRow], errors: ErrorsTable) -> TrialRun:
    """Start an engine, generate the rows, and measure it.

    Raises:
        JobError: the model, engine or sampling settings are invalid, or the model does not do what it declares.
        RunError: the engine does not start, or dies of every row.
        Interrupted: a signal has come.
    """
    engines: list[Engine] = []

    def start() -> Engine:
        engines[:] = [start_engine()]
        return engines[0]

    stop = StopRequest()
    with stop.listening():
        begun = time.monotonic()
        supervisor = Supervisor(start, errors.step_seconds, stop, errors.start_seconds)
        start_seconds = time.monotonic() - begun
        try:
            first = _generate(supervisor, rows, stop)
            steady, good = first, [row for row in rows if not isinstance(first.results[row.row], RowFailure)]
            if good and first.wall_seconds < _LONG_SECONDS and engines[0].forget_rows():
                steady = _generate(supervisor, good, stop)
        except BrokenDeclaration as error:  # nothing is lost that has to be kept: the job is to be corrected
            raise JobError(str(error)) from error
        finally:
            supervisor.close()
    return TrialRun(first, steady, start_seconds, supervisor.max_num_seqs)


def _generate(engine: Supervisor, rows: Sequence[MappedRow], stop: StopRequest) -> Generated:
    done = Generated()
    begun = time.monotonic()

    def take(result: RowResult) -> None:
        done.results[result.row] = result
        done.seconds[result.row] = time.monotonic() - begun

    for row in rows:
        failure = engine.add(row)
        if failure is not None:
            take(failure)
    engine.end_input()
    while engine.unfinished:
        if stop.requested:
            raise Interrupted
        for result in engine.step():
            take(result)
    done.wall_seconds = time.monotonic() - begun
    return done
