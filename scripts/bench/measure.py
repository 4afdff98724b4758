"""Runs one system on one workload and measures it from outside: wall time, memory of all processes, engine steps."""

import json
import os
import signal
import subprocess
import tempfile
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path

_SAMPLE_SECONDS = 0.1
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a system.

    Attributes:
        wall_seconds: from the start of the command to its end.
        ready_seconds: from the start until the engine was ready; until its first step, if the system reports no time.
        first_row_seconds: from the start until the first row was finished; until the engine had generated it, if the
            system reports no time.
        steady_rows_per_second: rows divided by the seconds from engine ready to the end.
        peak_bytes: largest sum of the resident memory of all its processes (shared memory counts in each).
        engine_idle_share: fraction of the time from ready to end in which vLLM's core was not in a step.
    """

    system: str
    workload: str
    rows: int
    wall_seconds: float
    ready_seconds: float
    first_row_seconds: float
    steady_rows_per_second: float
    peak_bytes: int
    engine_idle_share: float

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


def measure(
    system: str, workload: str, rows: int, command: list[str], environment: dict[str, str], log: Path, tokens: int = 16
) -> Run:
    """Run `command` to its end and measure it.

    The command prints `TIMES {"ready": ..., "first": ..., "end": ...}`, in seconds since the epoch.

    Raises:
        RuntimeError: the command fails; its output is in `log`.
    """
    with tempfile.TemporaryDirectory() as folder:
        steps = Path(folder) / "steps"
        environment = {**os.environ, **environment, "BENCH_ENGINE_LOG": str(steps)}
        with open(log, "wb") as output:
            start = time.time()
            process = subprocess.Popen(
                command, stdout=output, stderr=subprocess.STDOUT, env=environment, start_new_session=True
            )
            memory = _Memory(process.pid)
            code = process.wait()
            end = time.time()
        peak = memory.stop()
        _end_group(process.pid)
        worked = _worked(steps)
    said = [line for line in log.read_text(errors="replace").splitlines() if line.startswith("TIMES ")]
    if code or not said:
        raise RuntimeError(f"{system} on {workload} ended with exit code {code}; see {log}")
    times = json.loads(said[-1].removeprefix("TIMES "))
    # If a system does not report when its engine is ready, use the start of the engine's first step.
    ready = times.get("ready") or (worked[0][0] if worked else start)
    finished = times.get("end", end)
    # If it does not report its first row, use the step in which the engine, at one token per step, finished it.
    first_row = worked[tokens - 1][1] if len(worked) >= tokens else finished
    busy = sum(min(stop, finished) - max(begin, ready) for begin, stop in worked if stop > ready and begin < finished)
    return Run(
        system=system,
        workload=workload,
        rows=rows,
        wall_seconds=end - start,
        ready_seconds=ready - start,
        first_row_seconds=(times.get("first") or first_row) - start,
        steady_rows_per_second=rows / (finished - ready),
        peak_bytes=peak,
        engine_idle_share=1 - busy / (finished - ready),
    )


def _worked(steps: Path) -> list[tuple[float, float]]:
    if not steps.exists():
        return []
    spans = (line.split() for line in steps.read_text().splitlines())
    return sorted((float(span[0]), float(span[1])) for span in spans if len(span) == 2)


def _end_group(group: int) -> None:
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        return


class _Memory:
    """Samples the resident memory of a process and its descendants, in a thread."""

    def __init__(self, root: int) -> None:
        self._root = root
        self._peak = 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> int:
        self._done.set()
        self._thread.join()
        return self._peak

    def _run(self) -> None:
        while not self._done.wait(_SAMPLE_SECONDS):
            self._peak = max(self._peak, sum(map(_resident, _family(self._root))))


def _family(root: int) -> list[int]:
    """Process ids in the session of `root`: its descendants, except those that created a new session."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                fields = Path(f"/proc/{entry}/stat").read_text().rsplit(")", 1)[1].split()
            except OSError:
                continue
            if int(fields[3]) == root:
                found.append(int(entry))
    return found


def _resident(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE
    except OSError:
        return 0
