"""The processes of engines as the run's parent sees them: started, told to stop, ended with all that they started."""

import contextlib
import fcntl
import os
import pickle
import signal
import sys
import threading
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection, Pipe, wait
from pathlib import Path
from typing import TypeAlias

from run_batch.jobs.engines.engine_main import EngineProblem, EngineSpec, read_problem
from run_batch.jobs.engines.process_groups import ProcessGroups
from run_batch.jobs.machine.cores import bound_to
from run_batch.jobs.machine.gpus import Place

# Engines of one machine scan for free ports from here on, each in a range of its own, where VLLM_PORT is set.
_PORTS_PER_ENGINE = 100
_PIPE_DESCRIPTOR = 3
# What has inherited an engine's standard error, and was killed with it, closes it within this time.
_LAST_LINES_SECONDS = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class EngineSlot:
    """A place for one engine on this machine.

    Attributes:
        index: counted from 0.
        place: its GPUs.
        cores: its cores.
        workers: its worker processes.
    """

    index: int
    place: Place
    cores: set[int]
    workers: int

    @property
    def name(self) -> str:
        """The engine, for people."""
        devices = next(iter(self.place.values()), "")
        kind = "GPUs" if "," in devices else "GPU"
        return f"engine {self.index} ({kind} {devices})" if devices else f"engine {self.index}"

    def environment(self, environ: Mapping[str, str]) -> dict[str, str]:
        """The environment of its process: its own GPUs, ports, and cache of what vLLM compiles.

        vLLM writes its cache in place: a process that reads a file of another one half-written would crash.
        """
        home = environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
        cache = environ.get("VLLM_CACHE_ROOT") or str(Path(home) / "vllm")
        changed = {**environ, **self.place, "VLLM_CACHE_ROOT": str(Path(cache) / f"engine-{self.index}")}
        port = environ.get("VLLM_PORT", "")
        if port.isdigit():
            changed["VLLM_PORT"] = str(int(port) + _PORTS_PER_ENGINE * self.index)
        return changed


@dataclass(frozen=True, slots=True)
class Ending:
    """How the process of an engine has ended.

    Attributes:
        code: its exit code; of a process that a signal has killed, the negative number of that.
        problem: what it said last, if anything.
    """

    code: int
    problem: EngineProblem | None

    @property
    def why(self) -> str:
        """The reason, for people."""
        if self.problem is not None:
            return self.problem.message
        if self.code < 0:
            return f"killed by {signal.Signals(-self.code).name}"
        return f"exit code {self.code}; see the lines above"


StartProcess: TypeAlias = Callable[[Mapping[str, str], int, int], int]


def start_process(environ: Mapping[str, str], pipe: int, stderr: int) -> int:
    """Start the process of an engine, as the leader of a session of its own, which no Ctrl-C reaches; its id.

    Args:
        environ: its environment.
        pipe: descriptor of its end of the pipe to this process.
        stderr: descriptor of what becomes its standard error.
    """
    code = f"from run_batch.jobs.engines.engine_main import main; main({_PIPE_DESCRIPTOR})"
    null = os.open(os.devnull, os.O_RDWR)
    # Out of the way of the numbers that they get in the process.
    sources = [fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 10) for descriptor in (null, null, stderr, pipe)]
    os.close(null)
    try:
        actions = [(os.POSIX_SPAWN_DUP2, source, target) for target, source in enumerate(sources)]
        return os.posix_spawn(sys.executable, [sys.executable, "-c", code], environ, file_actions=actions, setsid=True)
    finally:
        for source in sources:
            os.close(source)


class EngineProcess:
    """The process of an engine, from its start to its end."""

    def __init__(
        self,
        slot: EngineSlot,
        spec: EngineSpec,
        groups: ProcessGroups,
        say: Callable[[str], None],
        start: StartProcess,
    ) -> None:
        """Start the process; to be called in the main thread, with whose end it ends.

        Args:
            say: shows a line that the process, or one of those that it starts, has printed.
        """
        self.slot, self.share = slot, spec.share
        self._groups = groups
        self._connection, theirs = Pipe()
        reading, writing = os.pipe()
        with theirs, bound_to(slot.cores):
            try:
                self._pid = start(slot.environment(os.environ), theirs.fileno(), writing)
            finally:
                os.close(writing)
        self._pidfd = os.pidfd_open(self._pid)
        groups.add(self._pid)
        self._lines = threading.Thread(target=_relay, args=(reading, slot.index, say), daemon=True)
        self._lines.start()
        with contextlib.suppress(BrokenPipeError):  # it has died already
            self._connection.send_bytes(pickle.dumps(spec))

    def fileno(self) -> int:
        """A descriptor that becomes readable when the process ends."""
        return self._pidfd

    def stop(self) -> None:
        """Ask the process to save what it has finished, and to end."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGTERM)

    def kill(self) -> None:
        """Kill the process and all that it has started."""
        self._groups.kill(self._pid)

    def end(self) -> Ending:
        """Wait until the process has ended, and end what it has left running."""
        os.waitid(os.P_PID, self._pid, os.WEXITED | os.WNOWAIT)
        self._groups.kill(self._pid)
        code = os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])
        self._lines.join(_LAST_LINES_SECONDS)
        problem = _last_message(self._connection)
        self._connection.close()
        os.close(self._pidfd)
        return Ending(code, problem)


def wait_for_ends(processes: Collection[EngineProcess], timeout: float) -> list[EngineProcess]:
    """Those of some processes that have ended, as soon as one has, or after `timeout` seconds."""
    ended = wait([process.fileno() for process in processes], timeout)
    return [process for process in processes if process.fileno() in ended]


def _relay(descriptor: int, index: int, say: Callable[[str], None]) -> None:
    """Show what an engine's processes print, line by line, with the number of the engine; runs in a thread."""
    with open(descriptor, errors="backslashreplace") as lines:
        for line in lines:
            if line.strip():
                say(f"engine {index}: {line.rstrip()}")


def _last_message(connection: Connection) -> EngineProblem | None:
    problem = None
    with contextlib.suppress(EOFError, OSError):
        while connection.poll():
            problem = read_problem(connection.recv_bytes())
    return problem
