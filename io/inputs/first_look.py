"""The first look at files: what is said of one that cannot be read, and whether it changed meanwhile."""

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa

from run_batch.io.inputs.file_format import FileFacts
from run_batch.io.inputs.input_files import InputFiles
from run_batch.io.inputs.read_errors import unread_file
from run_batch.io.inputs.source import InputError, LostInputError

# To look at a remote file is to wait.
_REMOTE_LOOKS = 16


def look_at_each(files: InputFiles, look_at: Callable[[InputFiles, str], FileFacts]) -> list[FileFacts]:
    """Look at all files, in the order of `files.paths`; raises the errors of `look_at`."""
    if files.filesystem is None:
        return [look_at(files, path) for path in files.paths]
    with ThreadPoolExecutor(max_workers=_REMOTE_LOOKS) as pool:
        return list(pool.map(lambda path: look_at(files, path), files.paths))


@contextlib.contextmanager
def looking_at(files: InputFiles, path: str) -> Iterator[tuple[int, int]]:
    """Around the first look at a file: its size in bytes, and the time of its last change.

    Raises:
        InputError: there is no such file, or it may not be read.
        DamagedInputError: it is truncated or damaged.
        LostInputError: it has changed meanwhile, or its storage fails.
        UnreachableInputError: storage or network fail in a way that may pass.
    """
    try:
        state = files.state(path)
        yield state
        if files.state(path) != state:
            raise LostInputError(f"input.path: {path} has changed while it was read; run the same command again")
    except FileNotFoundError:
        raise InputError(f"input.path: {path}: no such file") from None
    except (OSError, pa.ArrowException) as error:
        raise unread_file(path, error) from error
