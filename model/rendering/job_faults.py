"""Tells failures of the job or the machine from those of a row, where libraries raise exceptions of any type."""

import errno

from run_batch.model.declaration import JobFault

# The process may open no more files, or has no memory or space left, or a file system was exchanged below it.
_OF_THE_MACHINE = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC, errno.EDQUOT, errno.ESTALE}


def root_of(error: BaseException) -> BaseException:
    """The exception that others were raised from."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def machine_fault(error: BaseException) -> BaseException | None:
    """The missing package, the lack of memory, files or space, or the stale file handle behind an exception, if any.

    Args:
        error: also one that was raised, as the error of a row, while such an exception was handled.
    """
    behind = (error, error.__cause__ or error.__context__)
    for root in (root_of(found) for found in behind if found is not None):
        if isinstance(root, ImportError | MemoryError) or (isinstance(root, OSError) and root.errno in _OF_THE_MACHINE):
            return root
    return None


def raise_if_no_rows_fault(error: BaseException) -> None:
    """Raise what no row can have caused.

    Raises:
        JobFault: see `machine_fault`.
    """
    fault = machine_fault(error)
    if fault is not None:
        raise JobFault(describe(fault)) from error


def describe(error: BaseException) -> str:
    """An exception on one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
