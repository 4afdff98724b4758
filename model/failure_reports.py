"""Reports to the run why an engine process died; vLLM itself reports only that it did, and logs the rest.

A failure of run-batch's own code, and a model that does not do what it declares, must not count as a death that a row
may have caused; of every other death the exception is kept, so that deaths of one cause are seen to be alike.

vLLM logs the exception that ends one of its processes, in that process, before the run learns of the death; a handler
on vLLM's logger reads it there. It writes the report to an in-memory file (memfd) of the run's process, so nothing is
left on disk, however the processes end.
"""

import contextlib
import inspect
import json
import logging
import os
import sysconfig
import traceback
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from enum import StrEnum
from types import FrameType

from run_batch.model.declaration import DeclarationError

REPORT_VARIABLE = "RUN_BATCH_DEATH_REPORT"


# Top-level names of the job's plugins, in this process.
_plugins: set[str] = set()


class Fault(StrEnum):
    """Whose fault an exception is."""

    OWN_BUG = "own bug"
    DECLARATION = "declaration"  # the model does not do what it declares
    UNKNOWN = "unknown"  # a row's, a plugin's, vLLM's or the machine's


@dataclass(frozen=True, slots=True)
class Report:
    """An exception that ended a process.

    Attributes:
        text: type, message and place, on one line; of a wrong declaration the message alone.
        cause: type and place: equal for exceptions of one cause, whatever numbers their messages hold.
        in_plugin: whether code of a plugin, or a model class of one, was running; `text` then names its file and line.
        trace: the traceback.
    """

    fault: Fault
    text: str
    cause: str
    in_plugin: bool
    trace: str

    @classmethod
    def of(cls, error: BaseException) -> "Report":
        """The report of an exception that was raised."""
        steps = list(traceback.walk_tb(error.__traceback__))
        own = [step for step in steps if _is_of_plugin(step[0])]
        places = [(frame.f_code.co_filename, line) for frame, line in own] or _plugin_classes(steps)
        fallback = [(frame.f_code.co_filename, line) for frame, line in steps]
        place = "".join(f" ({file}, line {line})" for file, line in (places or fallback)[-1:])
        name, message = type(error).__name__, " ".join(str(error).split())
        trace = "".join(traceback.format_exception(error))
        if isinstance(error, DeclarationError):
            return cls(Fault.DECLARATION, str(error), name, bool(places), trace)
        fault = Fault.OWN_BUG if is_own_bug(error) else Fault.UNKNOWN
        return cls(fault, f"{name}: {message}{place}", f"{name}{place}", bool(places), trace)


def name_plugins(modules: Iterable[str]) -> None:
    """Tell which modules are the job's plugins."""
    _plugins.update(module.partition(".")[0] for module in modules)


def _plugin_classes(steps: Iterable[tuple[FrameType, int]]) -> list[tuple[str, int]]:
    """File and line of the plugins' classes whose inherited methods run in these frames."""
    places = []
    for frame, _ in steps:
        cls = type(frame.f_locals.get("self"))
        if cls.__module__.partition(".")[0] in _plugins:
            with contextlib.suppress(OSError, TypeError):
                places.append((str(inspect.getsourcefile(cls)), inspect.getsourcelines(cls)[1]))
    return places


def _is_of_plugin(frame: FrameType) -> bool:
    """Whether code of a plugin runs in a frame, or of a module that is not installed, as those beside a plugin."""
    top = str(frame.f_globals.get("__name__", "")).partition(".")[0]
    if top in _plugins:
        return True
    file = frame.f_code.co_filename
    installed = tuple(sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib"))
    return bool(_plugins) and top not in ("run_batch", "__main__") and not file.startswith((*installed, "<"))


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
        """The first report, one of a known fault before others; None where no process could write one."""
        lines = os.pread(self._file, os.fstat(self._file).st_size, 0).splitlines()
        reports = [Report(**{**report, "fault": Fault(report["fault"])}) for report in map(json.loads, lines)]
        return min(reports, key=lambda report: report.fault is Fault.UNKNOWN, default=None)

    def close(self) -> None:
        os.close(self._file)


class DeathReporter(logging.Handler):
    """Writes a report for each exception that vLLM logs."""

    def __init__(self, path: str) -> None:
        super().__init__(logging.ERROR)
        self._path = path

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        if error is None:
            return
        try:
            # One write, so that reports of several processes (tensor parallelism) do not mix.
            file = os.open(self._path, os.O_WRONLY | os.O_APPEND)
            os.write(file, json.dumps(asdict(Report.of(error))).encode() + b"\n")
            os.close(file)
        except OSError:  # the run has ended
            self.handleError(record)


def report_deaths() -> None:
    """Install the reporter in this process, which vLLM has started."""
    path = os.environ.get(REPORT_VARIABLE)
    logger = logging.getLogger("vllm")
    if path is not None and not any(isinstance(handler, DeathReporter) for handler in logger.handlers):
        logger.addHandler(DeathReporter(path))
