"""Signals that ask a run to stop: it saves its finished rows and exits with code 75.

These are SIGTERM, SIGINT, SIGUSR1 (Slurm sends it ahead of a time limit) and SIGHUP (the terminal was closed), unless
SIGHUP is ignored: under nohup the job goes on.
"""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from run_batch.jobs.job.errors import EXIT_INTERRUPTED, Interrupted
from run_batch.jobs.machine.early_signals import INTERRUPTED_LINE
from run_batch.jobs.machine.last_words import end_process

# Schedulers usually send SIGKILL 30 seconds after the first signal. A step of the engine that does not hang takes at
# most a second.
SAVE_SECONDS = 20.0
# Slurm signals every process of a job, and the job's script passes its signal on: one request arrives twice.
_REPEAT_SECONDS = 2.0


class StopRequest:
    """A request to stop, made by a signal.

    The first signal raises Interrupted while an engine loads, and sets `requested` while rows are generated. A second
    one ends the process at once.

    Attributes:
        loading: an engine is being loaded, so there is no row to save.
        requested: a signal has arrived.
        save: makes finished rows durable, from any thread; called when the main thread does not react to the signal.
        abandon: gives up what the run holds, from any thread; called when a signal ends the process at once.
        line: what is said then; nothing if it is empty.
    """

    def __init__(self, save_seconds: float = SAVE_SECONDS) -> None:
        """Prepare for a signal.

        Args:
            save_seconds: the process ends so long after it at the latest.
        """
        self._save_seconds = save_seconds
        self.loading = True
        self.requested = False
        self.save: Callable[[], None] = lambda: None
        self.abandon: Callable[[], None] = lambda: None
        self.line = INTERRUPTED_LINE

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Handle the signals; to be entered in the main thread."""
        numbers = [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT]
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            numbers.append(signal.SIGHUP)
        before = {number: signal.signal(number, self._handle) for number in numbers}
        reading, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        os.set_blocking(reading, True)
        wakeup = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        # A forked engine process inherits the pipe: a signal to that process is not one to this process.
        os.register_at_fork(after_in_child=_disable_wakeup)
        threading.Thread(target=self._watch, args=(reading,), name="stop-request", daemon=True).start()
        try:
            yield
        finally:
            signal.set_wakeup_fd(wakeup)
            os.close(writing)
            for number, handler in before.items():
                # A repeated signal must not kill the process before it has printed its last line and exited with 75.
                signal.signal(number, signal.SIG_IGN if self.requested else handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        if self.loading:
            self.loading = False
            if _is_importing(frame):
                # No exception gets out of the start of modules in C in good order: some print it, some crash.
                end_process(EXIT_INTERRUPTED, self.line, self.abandon)
            raise Interrupted

    def _watch(self, reading: int) -> None:
        """End the process on a second signal, or when the first is not followed by an exit in time.

        Runs in a thread: Python's own handler waits for the main thread, which may be inside a long call to C code.

        Args:
            reading: a pipe into which the interpreter writes the number of each signal as it arrives.
        """
        numbers = {signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGHUP}
        overdue: threading.Timer | None = None
        first = 0.0
        # An empty read: the other end was closed, when `listening` ended.
        while received := os.read(reading, 1):
            if received[0] not in numbers:
                continue
            if overdue is not None:
                if received[0] != signal.SIGINT and time.monotonic() - first < _REPEAT_SECONDS:
                    continue
                os._exit(EXIT_INTERRUPTED)
            first = time.monotonic()
            overdue = threading.Timer(self._save_seconds, self._overdue)
            overdue.daemon = True
            overdue.start()
        if overdue is not None:
            overdue.cancel()
        os.close(reading)

    def _overdue(self) -> None:
        message = "interrupted; the engine or the storage did not answer. Run the same command again to go on"
        end_process(EXIT_INTERRUPTED, message, self.save)


def _is_importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
        frame = frame.f_back
    return False


def _disable_wakeup() -> None:
    # ValueError: a thread other than the main one has forked, and only the main one may set the descriptor.
    with contextlib.suppress(ValueError):
        signal.set_wakeup_fd(-1)
