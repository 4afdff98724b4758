"""How long workers may take: to load, and to map each row. Finds those that hang, and tells bad rows from a bad job.

Rows that are mapped together have the time of one row at first: each of them gets that time again when it is mapped
alone. Where none of them hangs then, rows together get twice as much from now on, up to the sum of their times.
"""

from collections.abc import Iterable, Set
from typing import Protocol, TypeVar

from run_batch.io.inputs.source import RowBatch
from run_batch.jobs.job.errors import JobError, RunError
from run_batch.jobs.job.rows import MappedRows, RowFailure
from run_batch.jobs.machine.watchdog import AwakeClock
from run_batch.jobs.mapping.pending_batches import PendingBatches
from run_batch.jobs.mapping.row_clock import Activity, SeenClock, Stage

# The first rows of a process load code and fill caches.
_FIRST_SECONDS = 5.0
# After so many rows in succession that hang alone, with no row mapped in between, the rows are not the cause.
_HANGS_TO_END = 8
# Workers are looked at this often, and four times within the shortest limit.
_TICK_SECONDS, _TICKS = 1.0, 4


class Worker(Protocol):
    """What is known of a worker process.

    Attributes:
        loaded: it takes rows.
    """

    clock: SeenClock
    loaded: bool


AnyWorker = TypeVar("AnyWorker", bound=Worker)


class RowDeadlines:
    """The deadlines of the workers of a pool.

    Attributes:
        tick: seconds after which to look again, at the latest.
    """

    def __init__(self, row_seconds: float = 0.0, start_seconds: float = 0.0) -> None:
        """Begin.

        Args:
            row_seconds: for one row; 0 for no limit.
            start_seconds: for a worker to load; 0 for no limit.
        """
        self._row_seconds, self._start_seconds = row_seconds, start_seconds
        self.tick = min([_TICK_SECONDS, *(limit / _TICKS for limit in (row_seconds, start_seconds) if limit)])
        self._clock = AwakeClock(self.tick)
        self._looked = 0.0
        self._times_rows = 1
        self._together: list[set[int]] = []
        self._hung: list[RowFailure] = []
        self._has_mapped = False

    def overdue(self, workers: Iterable[AnyWorker]) -> list[tuple[AnyWorker, Stage]]:
        """The workers that hang, and what in; none more often than every `tick` seconds.

        Raises:
            RunError: a worker has not loaded in time.
        """
        now = self._clock.now()
        if now - self._looked < self.tick:
            return []
        self._looked = now
        waited = [(worker, worker.clock.look(now)) for worker in workers]
        if self._start_seconds and any(not worker.loaded and s > self._start_seconds for worker, s in waited):
            raise RunError(
                f"a worker process has not started within {self._start_seconds:g} s (errors.start_seconds). See what "
                "it waits for with --verbose: the model's folder, a plugin's import. Then run the same command again"
            )
        return [
            (worker, worker.clock.stage)
            for worker, seconds in waited
            if worker.clock.stage is not None and seconds > self._limit(worker.clock, worker.clock.stage)
        ]

    def _limit(self, clock: SeenClock, stage: Stage) -> float:
        if stage.activity is Activity.IDLE or not self._row_seconds:
            return float("inf")
        seconds = self._row_seconds * min(stage.rows, self._times_rows)
        return seconds if clock.has_mapped else max(seconds, _FIRST_SECONDS)

    def retry(self, pending: PendingBatches, batch: RowBatch, stage: Stage) -> None:
        """Have each row of a batch mapped alone that a worker hangs on; a row that hangs alone again fails.

        Raises:
            JobError, RunError: so have the rows before it: the job or the machine is at fault.
        """
        if pending.retry_overdue(batch):
            self._together.append(set(range(batch.start, batch.stop)))
            return
        self._together = [rows for rows in self._together if batch.start not in rows]
        message = f"{stage.what} takes longer than {self._row_seconds:g} s (errors.mapping_seconds)"
        self._hung.append(RowFailure.of(batch.start, "mapping_timeout", message))
        if len(self._hung) >= _HANGS_TO_END:
            raise self._error(stage, self._hung[0])

    def mapped(self, worker: Worker, rows: MappedRows) -> MappedRows:
        """Note rows that a worker has mapped.

        Returns:
            These rows, and those that have failed before, now that mapping is known to work.
        """
        worker.clock.has_mapped = self._has_mapped = True
        if self._together:
            self._count_false_alarms({row.row for row in rows})
        return [*rows, *self.release()] if self._hung else rows

    def release(self) -> MappedRows:
        """The failed rows that are held back."""
        hung, self._hung = self._hung, []
        return list(hung)

    def _count_false_alarms(self, rows: Set[int]) -> None:
        """Give rows together more time, where all that were overdue together have been mapped alone."""
        left = [together for together in self._together if together - rows]
        self._times_rows <<= len(self._together) - len(left)
        self._together = [together - rows for together in left]

    def _error(self, stage: Stage, first: RowFailure) -> Exception:
        message = (
            f"{len(self._hung)} rows in succession hang while they are mapped, each alone, and none is recorded. "
            f"Row {first.row}: {first.error}. "
        )
        if stage.activity is Activity.READING:
            return RunError(f"{message}See to the file system of the images, and run the same command again")
        error = JobError if not self._has_mapped else RunError
        return error(f"{message}Correct the plugin or the job, or raise errors.mapping_seconds")
