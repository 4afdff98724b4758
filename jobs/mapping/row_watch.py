"""Rows that are mapped in this process, as `check` and `try` do: one that hangs ends it, and is named."""

import contextlib
from collections.abc import Iterator

from run_batch.jobs.job.errors import EXIT_BAD_JOB
from run_batch.jobs.machine.last_words import end_process
from run_batch.jobs.machine.watchdog import WATCHDOG, Watch
from run_batch.jobs.mapping.row_clock import Activity, clock


@contextlib.contextmanager
def rows_watched(row_seconds: float) -> Iterator[None]:
    """Around calls of a RowMapper.

    Args:
        row_seconds: how long a row may take; 0 for no limit. Rows that are mapped together have the sum of their times.
    """

    def progress() -> int | None:
        stage = clock.stage
        return None if stage.activity is Activity.IDLE else stage.number

    def end_if_it_hangs(waited: float) -> None:
        stage = clock.stage
        if row_seconds and waited > row_seconds * max(stage.rows, 1):
            which = (
                f"row {stage.row}" if stage.rows == 1 else f"one of rows {stage.row} to {stage.row + stage.rows - 1}"
            )
            end_process(
                EXIT_BAD_JOB,
                f"{which}: {stage.what} takes longer than {row_seconds:g} s a row (errors.mapping_seconds); a run "
                "fails such a row with mapping_timeout and goes on",
            )

    watch = Watch(0, end_if_it_hangs, progress, end_if_it_hangs)
    clock.rest()
    WATCHDOG.add(watch)
    try:
        yield
    finally:
        WATCHDOG.remove(watch)
