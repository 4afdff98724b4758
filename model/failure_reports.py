"""Reports to the run why an engine process died; vLLM itself reports only that it did, and logs the rest.

A failure of run-batch's own code, and a model that does not do what it declares, must not count as a death that a row
may have caused. vLLM logs the exception that ends one of its processes, in that process, before the run learns of the
death; a handler on vLLM's logger reads it there. It writes the report to an in-memory file (memfd) of the run's
process, so nothing is left on disk, however the processes end.
"""

import json
import logging
import os
import traceback
from dataclasses import asdict, dataclass

from run_batch.model.declaration import DeclarationError

REPORT_VARIABLE = "RUN_BATCH_DEATH_REPORT"


@dataclass(frozen=True, slots=True)
class Report:
    """The reason why a process ended.

    Attributes:
        own_bug: whether run-batch's own code failed; if not, the model's declaration is wrong.
        text: the traceback of a bug, the message of a wrong declaration.
    """

    own_bug: bool
    text: str


def is_own_bug(error: BaseException) -> bool:
    """Whether run-batch's own code raised this, so that no row is to blame; out of memory, any code may fail."""
    if isinstance(error, MemoryError) or "out of memory" in str(error).lower() or "can't allocate" in str(error):
        return False
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and str(trace.tb_frame.f_globals.get("__name__", "")).startswith("run_batch.")


class Reports:
    """Receives, in the run's process, the reports of one engine's processes."""

    def __init__(self) -> None:
        """Open the file, and name it in the environment of the processes that are started from now on."""
        self._file = os.memfd_create("run-batch-death-report")
        os.environ[REPORT_VARIABLE] = f"/proc/{os.getpid()}/fd/{self._file}"

    def first(self) -> Report | None:
        """The first report; None where a row may be to blame, or no process could write one."""
        line, _, _ = os.pread(self._file, os.fstat(self._file).st_size, 0).partition(b"\n")
        return Report(**json.loads(line)) if line else None

    def close(self) -> None:
        os.close(self._file)


class DeathReporter(logging.Handler):
    """Writes a report for each exception that vLLM logs and that no row is to blame for."""

    def __init__(self, path: str) -> None:
        super().__init__(logging.ERROR)
        self._path = path

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, DeclarationError):
            report = Report(own_bug=False, text=str(error))
        elif error is not None and is_own_bug(error):
            report = Report(own_bug=True, text="".join(traceback.format_exception(error)))
        else:
            return
        try:
            # One write, so that reports of several processes (tensor parallelism) do not mix.
            file = os.open(self._path, os.O_WRONLY | os.O_APPEND)
            os.write(file, json.dumps(asdict(report)).encode() + b"\n")
            os.close(file)
        except OSError:  # the run has ended
            self.handleError(record)


def report_deaths() -> None:
    """Install the reporter in this process, which vLLM has started."""
    path = os.environ.get(REPORT_VARIABLE)
    logger = logging.getLogger("vllm")
    if path is not None and not any(isinstance(handler, DeathReporter) for handler in logger.handlers):
        logger.addHandler(DeathReporter(path))
