"""How a job can fail, and the exit code of each way (see `run-batch --help`)."""

import contextlib
from collections.abc import Iterator
from typing import ClassVar

from run_batch.io.inputs.source import DamagedInputError, InputError, LostInputError, UnreachableInputError
from run_batch.io.secrets import hide_secrets
from run_batch.io.transient import may_pass

EXIT_COMPLETE = 0
EXIT_RUN_FAILED = 1
EXIT_BAD_JOB = 2
EXIT_TOO_MANY_FAILURES = 3
EXIT_MAY_PASS = 74  # as EX_IOERR of sysexits.h
EXIT_INTERRUPTED = 75


class _ShownError(Exception):
    """An error whose message is for people and logs: secrets in it are hidden.

    Attributes:
        exit_code: of the command that ends with it.
    """

    exit_code: ClassVar[int]

    def __init__(self, message: str) -> None:
        super().__init__(hide_secrets(message))


class JobError(_ShownError):
    """The job cannot start as it is configured: exit code 2. The message names the
    file, key or column, and how to fix it."""

    exit_code = EXIT_BAD_JOB


class RunError(_ShownError):
    """The run failed and the same command resumes it: exit code 1."""

    exit_code = EXIT_RUN_FAILED


class MayPassError(RunError):
    """Storage or network failed in a way that may pass, so the same command may work later: exit code 74."""

    exit_code = EXIT_MAY_PASS


class Interrupted(BaseException):
    """SIGTERM or SIGINT before any row was generated. Not an Exception: no library may swallow it."""


def are_too_many(failed: int, rows: int, max_fraction: float) -> bool:
    """Whether more than a fraction of some rows failed; none of none are not too many."""
    # A quotient: the product of 0.29 and 100 is less than 29.
    return failed > 0 and failed / rows > max_fraction


def run_failed(message: str, error: BaseException) -> RunError:
    """The error of a run that `error` has ended; a MayPassError where that may pass."""
    return MayPassError(message) if may_pass(error) else RunError(message)


def input_failed(error: InputError, where: str = "") -> JobError | RunError:
    """The error of a job that cannot start because of its input.

    Args:
        where: begins the message where the job is at fault.
    """
    if isinstance(error, UnreachableInputError):
        return MayPassError(str(error))
    if isinstance(error, LostInputError):
        return RunError(str(error))
    # The same command cannot work before there is another file: as with a job that is configured badly.
    return JobError(str(error) if isinstance(error, DamagedInputError) else f"{where}{error}")


def storage_failed(what: str, error: OSError) -> RunError:
    """The error of a run whose output folder cannot be read or written to; `what` says what was to be done with it."""
    if may_pass(error):
        return MayPassError(
            f"{what}: {error}. What is finished is kept. This may pass: run the same command again later, here or on "
            "another machine"
        )
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
