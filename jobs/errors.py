"""How a job can fail, and the exit code of each way (see `run-batch --help`)."""

EXIT_COMPLETE = 0
EXIT_RUN_FAILED = 1
EXIT_BAD_JOB = 2
EXIT_TOO_MANY_FAILURES = 3
EXIT_INTERRUPTED = 75


class JobError(Exception):
    """The job cannot start as it is configured: exit code 2. The message names file, key or column and the mend."""


class RunError(Exception):
    """The run failed and the same command resumes it: exit code 1."""


class Interrupted(BaseException):
    """SIGTERM or SIGINT before any row was generated. Not an Exception: no library may swallow it."""
