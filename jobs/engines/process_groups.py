"""Process groups that end with this process, even if it is killed."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from run_batch.jobs.engines import guard


class ProcessGroups:
    """The process groups of a run's engines, and the guard that kills them should this process die."""

    def __init__(self) -> None:
        self._groups: set[int] = set()
        self._guard = _start_guard()

    def add(self, group: int) -> None:
        """Have a process group end with this process."""
        self._groups.add(group)
        self._tell(f"+{group}")

    def kill(self, group: int) -> None:
        """Kill what is left of a process group. Its leader must not have been waited for: the id could be another's."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)
        self._groups.discard(group)
        self._tell(f"-{group}")

    def check(self) -> None:
        """Start another guard in the place of one that has died."""
        if self._guard.poll() is not None:
            assert self._guard.stdin is not None
            self._guard.stdin.close()
            self._guard = _start_guard()
            for group in self._groups:
                self._tell(f"+{group}")

    def close(self) -> None:
        """Kill all groups, and end the guard."""
        for group in list(self._groups):
            self.kill(group)
        assert self._guard.stdin is not None
        with contextlib.suppress(OSError):
            self._guard.stdin.close()
        self._guard.wait()

    def _tell(self, line: str) -> None:
        assert self._guard.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # dead: see check
            self._guard.stdin.write(line.encode() + b"\n")


@contextlib.contextmanager
def process_groups() -> Iterator[ProcessGroups]:
    """Process groups that are killed at the end of the block at the latest."""
    groups = ProcessGroups()
    try:
        yield groups
    finally:
        groups.close()


def _start_guard() -> subprocess.Popen[bytes]:
    command = [sys.executable, "-I", "-S", str(Path(guard.__file__))]
    return subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True, bufsize=0)
