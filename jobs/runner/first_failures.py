"""The rows that fail before any row is generated: where all of them fail alike, the job is at fault, and no row.

They are held back until then, so that nothing is recorded of rows that a corrected job can generate; once so many have
failed in different ways, they are recorded.
"""

from run_batch.jobs.job.errors import JobError, RunError
from run_batch.jobs.job.rows import RowFailure, RowResult


class FirstFailures:
    """Holds failed rows back, up to the first row that is generated."""

    def __init__(self, min_rows: int, has_texts: bool) -> None:
        """Begin to hold rows back.

        Args:
            min_rows: so many rows, all of them alike, end the run.
            has_texts: earlier processes have generated rows of the job.
        """
        self._min_rows, self._has_texts = min_rows, has_texts
        self._held: list[RowFailure] = []
        self._is_over = False

    def pass_on(self, result: RowResult) -> list[RowResult]:
        """The rows to record now that this one is finished."""
        if self._is_over or not isinstance(result, RowFailure):
            return [*self.release(), result]
        self._held.append(result)
        return self.release() if len(self._held) >= self._min_rows and not self._are_alike() else []

    def release(self) -> list[RowResult]:
        """The rows that are held back; from now on, none are."""
        self._is_over = True
        held, self._held = self._held, []
        return list(held)

    def check(self) -> None:
        """End the run where enough rows have failed alike; called while the engine has no row that may yet work.

        Raises:
            JobError: no row of the job has been generated.
            RunError: earlier runs have generated rows.
        """
        if len(self._held) < self._min_rows:
            return
        failures, self._held = self._held, []
        message = (
            f"all of the first {len(failures)} rows fail alike: the job is at fault and not the rows, none of them is "
            f"recorded. Row {failures[0].row}: {failures[0].error}. Correct the job, or raise errors.min_rows"
        )
        raise RunError(message) if self._has_texts else JobError(message)

    def _are_alike(self) -> bool:
        return len({failure.kind for failure in self._held}) == 1
