"""The command line in forks of a process that has imported all of it: a command begins in milliseconds, not in the
seconds of a core that torch and vLLM take, once for itself and once for its workers.

All else is the product: options, signals, standard output, worker processes, engine, exit code. What a command imports
when, and what it leaves to the environment of the processes that it starts, only a process of its own shows.
"""

import contextlib
import functools
import json
import multiprocessing.process
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Pipe, wait
from pathlib import Path
from typing import Any, NoReturn

import fork_server
import forked_vllm
import psutil

# Whoever starts a process takes the exit codes of all that have ended: of two threads, one would find none.
_one_thread = threading.Lock()


class Forker:
    """A process of one thread that forks worker processes for the command that it was forked from itself."""

    def __init__(self) -> None:
        self._asked, asks = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        if os.fork() == 0:
            self._asked.close()
            _fork_workers(asks)
        asks.close()

    def start_workers(self, spec: Any, count: int) -> list[Any]:
        """As `start_workers` of the product does."""
        from run_batch.jobs.mapping.worker_process import serving, worker_environment

        pipes = [Pipe(duplex=True) for _ in range(count)]
        environment = json.dumps({**os.environ, **worker_environment(spec.memory)}).encode()
        socket.send_fds(self._asked, [environment], [theirs.fileno() for _, theirs in pipes])
        process: Any = ForkedWorker(int(self._asked.recv(16)))
        return serving(process, pipes, spec)


def _fork_workers(asks: socket.socket) -> NoReturn:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    while True:
        environment, descriptors, _, _ = socket.recv_fds(asks, 1 << 20, 64)
        if not environment:
            os._exit(0)
        pid = os.fork()
        if pid == 0:
            from run_batch.jobs.mapping.worker_main import main

            asks.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            _take_environment(json.loads(environment))
            main(*descriptors)
        for descriptor in descriptors:
            os.close(descriptor)
        asks.send(b"%d" % pid)


class ForkedWorker:
    """A worker process, with the methods of subprocess.Popen that are used."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        try:
            self._pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            self._pidfd = -1

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            if self._pidfd >= 0:
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def wait(self) -> None:
        if self._pidfd >= 0:
            select.select([self._pidfd], [], [])
            os.close(self._pidfd)
            self._pidfd = -1


def _take_environment(environment: Mapping[str, str]) -> None:
    os.environ.clear()
    os.environ.update(environment)


def run_main(
    words: Sequence[str],
    environment: Mapping[str, str],
    stdout: Path,
    stderr: Path,
    change: Callable[[], None] | None = None,
) -> NoReturn:
    """`run-batch` with these words, in a process group of its own, after a change of its code; ends the process."""
    os.setsid()
    # A command is nobody's child: processes of vLLM's own end with their parent.
    multiprocessing.process._parent_process = None  # type: ignore[attr-defined]
    _take_environment(environment)
    os.chdir("/")
    for number, name in ((0, os.devnull), (1, stdout), (2, stderr)):
        opened = os.open(name, os.O_RDWR | os.O_CREAT, 0o666)
        os.dup2(opened, number)
        os.close(opened)
    sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w", buffering=1)
    # The fork server says nothing of modules that it cannot import: the tests would only be slow.
    assert "vllm.v1.worker.cpu_worker" in sys.modules, "command_imports.py was not imported"
    signal.signal(signal.SIGINT, signal.default_int_handler)
    forker = Forker()
    forked_vllm.fork_its_processes()
    from run_batch.jobs.cli import main
    from run_batch.jobs.mapping.worker_pool import WorkerPool
    from run_batch.jobs.runner import pipeline

    pipeline.WorkerPool = functools.partial(WorkerPool, start=forker.start_workers)  # type: ignore[misc,assignment]
    if change:
        change()
    main([*words], prog_name="run-batch")
    os._exit(0)


class Command:
    """A command that runs, with the methods of subprocess.Popen that are used; what it says is in two files."""

    def __init__(
        self,
        words: Sequence[str],
        environment: Mapping[str, str],
        folder: Path,
        change: Callable[[], None] | None = None,
    ) -> None:
        self._words, self._files = words, (folder / "stdout", folder / "stderr")
        arguments = (words, dict(environment), *self._files, change)
        self._process = fork_server.CONTEXT.Process(target=run_main, args=arguments)
        with _one_thread:
            self._process.start()
        self.pid = self._process.pid or 0

    def poll(self) -> int | None:
        return self._process.exitcode

    def workers(self) -> list[int]:
        """Its worker processes, below the one that forks them; none before the first and after its end."""
        try:
            return [worker.pid for forker in psutil.Process(self.pid).children() for worker in forker.children()]
        except psutil.NoSuchProcess:
            return []

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill_group(self) -> None:
        """kill -9 to the command and its worker processes."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        with _one_thread:
            self._process.join()

    def finish(self, timeout: float) -> "subprocess.CompletedProcess[str]":
        """Wait for its end; it is killed where it takes longer."""
        if not wait([self._process.sentinel], timeout):
            self.kill_group()
            raise subprocess.TimeoutExpired([*self._words], timeout)
        with _one_thread:
            self._process.join()
        said = (path.read_text() if path.exists() else "" for path in self._files)
        return subprocess.CompletedProcess([*self._words], self._process.exitcode or 0, *said)
