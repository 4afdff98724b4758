"""How a job can fail, and the exit code of each way (see `run-batch --help`)."""

import contextlib
from collections.abc import Iterator

from run_batch.io.secrets import hide_secrets

EXIT_COMPLETE = 0
EXIT_RUN_FAILED = 1
EXIT_BAD_JOB = 2
EXIT_TOO_MANY_FAILURES = 3
EXIT_INTERRUPTED = 75


class _ShownError(Exception):
    """An error whose message is for people and logs: secrets in it are hidden."""

    def __init__(self, message: str) -> None:
        super().__init__(hide_secrets(message))


class JobError(_ShownError):
    """The job cannot start as it is configured: exit code 2. The message names the
    file, key or column, and how to fix it."""


class RunError(_ShownError):
    """The run failed and the same command resumes it: exit code 1."""


class Interrupted(BaseException):
    """SIGTERM or SIGINT before any row was generated. Not an Exception: no library may swallow it."""


def are_too_many(failed: int, rows: int, max_fraction: float) -> bool:
    """Whether more than a fraction of some rows failed; none of none are not too many."""
    # A quotient: the product of 0.29 and 100 is less than 29.
    return failed > 0 and failed / rows > max_fraction


def storage_failed(what: str, error: OSError) -> RunError:
    """The error of a run whose output folder cannot be written to; `what` says what was to be written."""
    return RunError(
        f"{what}: {error}. What is finished is kept; free or repair the storage and run the same command again"
    )


@contextlib.contextmanager
def storage_errors(what: str) -> Iterator[None]:
    """Turn an OSError into `storage_failed(what, ...)`."""
    try:
        yield
    except OSError as error:
        raise storage_failed(what, error) from error
