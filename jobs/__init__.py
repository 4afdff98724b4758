"""Jobs: defines, checks, runs and reports them.

This package exports what runs a job from Python. Each name is imported when it is first used: a process that needs one
module of the package must not wait for others.
"""

import importlib

TYPE_CHECKING = False  # typing's, without its import: a command cannot be interrupted in good order before it begins
if TYPE_CHECKING:
    from run_batch.jobs.job.errors import JobError, MayPassError, RunError
    from run_batch.jobs.python_call import RunResult, run

__all__ = ["JobError", "MayPassError", "RunError", "RunResult", "run"]

_CALL, _ERRORS = "run_batch.jobs.python_call", "run_batch.jobs.job.errors"


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_CALL if name in ("run", "RunResult") else _ERRORS), name)
