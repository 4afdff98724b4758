"""What is wrong where a file of the input cannot be read: damaged, gone, not permitted, or out of reach for a while."""

import contextlib
from collections.abc import Iterator

import pyarrow as pa

from run_batch.io.inputs.source import DamagedInputError, InputError, LostInputError, UnreachableInputError
from run_batch.io.transient import describe, may_pass, passing_cause


@contextlib.contextmanager
def reading(path: str) -> Iterator[None]:
    """Around the reading of rows of a file that was there when the input was opened.

    Raises:
        DamagedInputError: the file is damaged.
        LostInputError: the file has gone, or its storage fails.
        UnreachableInputError: storage or network fail in a way that may pass.
        InputError: the file may not be read.
    """
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        raise read_error(path, error) from error


def read_error(path: str, error: Exception) -> InputError:
    """The error of a file that could be opened once and cannot be read now."""
    if may_pass(error):
        return unreachable(path, error)
    if isinstance(error, FileNotFoundError):
        return LostInputError(f"{path} no longer exists; put it back and run the same command again")
    if isinstance(error, OSError) and error.errno is not None:
        return LostInputError(
            f"{path} cannot be read: {describe(error)}; repair the storage, or the file's permissions, and run the "
            "same command again"
        )
    return DamagedInputError(f"{path} is damaged: {error}; put a good copy in its place and run the same command again")


def unread_file(path: str, error: Exception) -> InputError:
    """The error of a file that cannot be read at its first look."""
    if may_pass(error):
        return unreachable(f"input.path: {path}", error)
    said = f"input.path: {path} cannot be read: {describe(error)}"
    if isinstance(error, PermissionError):
        return InputError(said)
    if isinstance(error, OSError) and error.errno is not None:
        return LostInputError(f"{said}; repair the storage and run the same command again")
    return DamagedInputError(f"{said}; put a good copy in its place")


def unreachable(path: str, error: BaseException) -> UnreachableInputError:
    """The error of a file or folder whose storage, or the network to it, fails in a way that may pass."""
    what = describe(passing_cause(error))
    return UnreachableInputError(
        f"{path} cannot be read now: {what}; it was tried several times. This may pass: run the same "
        "command again later"
    )
