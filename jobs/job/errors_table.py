"""The table `errors` of job.toml: see `config_tables.py`."""

from run_batch.jobs.job.config_keys import Effect, Table, key
from run_batch.jobs.job.config_values import Fraction, JudgedRows, Seconds

# Of errors.mapping_seconds, where job.toml does not set it: on a busy machine, any row may take a second.
_ROW_SECONDS, _LEAST_ROW_SECONDS = 60.0, 2.0


class ErrorsTable(Table):
    """What counts as a failure, and how many of them a job may have."""

    max_fraction: Fraction = key(
        "share of failed rows, and of unexpected texts, above which the job ends with exit code 3; a process stops "
        "with 1 where more of errors.min_rows rows fail by what its machine can cause",
        Effect.FREE,
        example=0.01,
        default=0.1,
    )
    min_rows: JudgedRows = key(
        "so many first rows that all fail alike stop the run: the job is at fault; so many rows are also judged at a "
        "time for failures that the machine can cause",
        Effect.FREE,
        example=200,
        default=1000,
    )
    step_seconds: Seconds = key(
        "an engine whose step takes longer counts as dead; 0 for no limit", Effect.FREE, example=1800, default=600.0
    )
    start_seconds: Seconds = key(
        "an engine that takes longer to start, or worker processes that do, end the run with exit code 1; 0 for no "
        "limit",
        Effect.FREE,
        example=7200,
        default=3600.0,
    )
    mapping_seconds: Seconds | None = key(
        "a row that takes longer to map fails with mapping_timeout; 0 for no limit; without it 60, or "
        "errors.step_seconds where that is from 2 to 60",
        Effect.FREE,
        example=120,
        default=None,
    )
    storage_seconds: Seconds = key(
        "a run whose storage does not answer for longer ends with exit code 1, one that waits for output.upload with "
        "74; 0 for no limit",
        Effect.FREE,
        example=600,
        default=300.0,
    )
    expected_column: str | None = key(
        "column with the text expected of each row; other texts count for errors.max_fraction",
        Effect.ANOTHER_JOB,
        example="answer",
        default=None,
    )

    @property
    def row_seconds(self) -> float:
        """How long a row may take to map; 0 for no limit."""
        if self.mapping_seconds is not None:
            return self.mapping_seconds
        return min(_ROW_SECONDS, max(self.step_seconds or _ROW_SECONDS, _LEAST_ROW_SECONDS))
