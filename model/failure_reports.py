"""Why an engine's process dies, told to the run: vLLM tells it only that it is dead, and leaves the rest to its log.

What no row is to blame for must not look like a death that a row may have caused: a failure of run-batch's own code,
and a model that does not do what it declares. vLLM logs the exception that ends one of its processes, in that process,
before it says anything to the run; a handler of its logger looks at it there. The report goes into a file in the
memory of the run's process, so nothing is left on any disk, however the processes end.
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
    """Why a process ended.

    Attributes:
        own_bug: whether run-batch's own code failed; else the model's declaration does not hold.
        text: a traceback for the one, a message for the other.
    """

    own_bug: bool
    text: str


def is_own_bug(error: BaseException) -> bool:
    """Whether run-batch's own code raised this: then no row is to blame. Memory runs out anywhere."""
    if isinstance(error, MemoryError) or "out of memory" in str(error).lower() or "can't allocate" in str(error):
        return False
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and str(trace.tb_frame.f_globals.get("__name__", "")).startswith("run_batch.")


class Reports:
    """What the processes of one engine report, as the run sees it."""

    def __init__(self) -> None:
        """Tell the processes that are started from now on where to report."""
        self._file = os.memfd_create("run-batch-death-report")
        os.environ[REPORT_VARIABLE] = f"/proc/{os.getpid()}/fd/{self._file}"

    def first(self) -> Report | None:
        """What ended the engine; None where it is none of our concern, or nobody could say anything any more."""
        line, _, _ = os.pread(self._file, os.fstat(self._file).st_size, 0).partition(b"\n")
        return Report(**json.loads(line)) if line else None

    def close(self) -> None:
        os.close(self._file)


class DeathReporter(logging.Handler):
    """Reports the exceptions that vLLM logs and that no row is to blame for."""

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
            # One write, so that processes of a tensor-parallel engine do not mix theirs.
            file = os.open(self._path, os.O_WRONLY | os.O_APPEND)
            os.write(file, json.dumps(asdict(report)).encode() + b"\n")
            os.close(file)
        except OSError:  # the run is gone
            self.handleError(record)


def report_deaths() -> None:
    """In a process that vLLM has started: have what ends it reported."""
    path = os.environ.get(REPORT_VARIABLE)
    logger = logging.getLogger("vllm")
    if path is not None and not any(isinstance(handler, DeathReporter) for handler in logger.handlers):
        logger.addHandler(DeathReporter(path))
