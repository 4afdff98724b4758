"""Tells failures of the job or the machine from those of a row, where libraries raise exceptions of any type."""

import errno

from run_batch.model.declaration import JobFault

# The process may open no more files, or has no memory or space left.
_EXHAUSTED = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC, errno.EDQUOT}


def root_of(error: BaseException) -> BaseException:
    """The exception that others were raised from."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def machine_fault(error: BaseException) -> BaseException | None:
    """The missing package, or the lack of memory, files or space, behind an exception; None for others.

    Args:
        error: also one that was raised, as the error of a row, while such an exception was handled.
    """
    behind = (error, error.__cause__ or error.__context__)
    for root in (root_of(found) for found in behind if found is not None):
        if isinstance(root, ImportError | MemoryError) or (isinstance(root, OSError) and root.errno in _EXHAUSTED):
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
