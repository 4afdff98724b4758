"""SIGTERM and SIGINT: stop, save what is finished, and say so by the exit code.

SIGUSR1, by which Slurm tells of a time limit ahead, counts as SIGTERM. So does SIGHUP, a closed terminal, unless it is
ignored: under nohup the job goes on.
"""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from run_batch.jobs.job.errors import EXIT_INTERRUPTED, Interrupted

# Who sent the signal mostly kills after 30 seconds. A step of the engine takes a second at most, unless it hangs.
_SAVE_SECONDS = 20.0
# Slurm signals all processes of a job, and its script passes on what it gets: the same request, twice.
_ECHO_SECONDS = 2.0


class StopRequest:
    """SIGTERM, SIGUSR1 or SIGINT: an exception while the engine loads, a flag once rows are generated. A second one
    ends the process at once.

    Attributes:
        loading: the engine is being loaded, and no row is in it.
        requested: a signal has come.
        save: what a thread can still save when the main thread does not get to it.
    """

    def __init__(self) -> None:
        self.loading = True
        self.requested = False
        self.save: Callable[[], None] = lambda: None

    @contextmanager
    def listening(self) -> Iterator[None]:
        numbers = [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT]
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            numbers.append(signal.SIGHUP)
        before = {number: signal.signal(number, self._handle) for number in numbers}
        reading, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        os.set_blocking(reading, True)
        wakeup = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        # A forked engine process shares the pipe: what is sent to it is not meant for this process.
        os.register_at_fork(after_in_child=_forget_wakeup)
        threading.Thread(target=self._see_to_it, args=(reading,), name="stop-request", daemon=True).start()
        try:
            yield
        finally:
            signal.set_wakeup_fd(wakeup)
            os.close(writing)
            for number, handler in before.items():
                # Once stopped, nothing is left to stop: an echo must not end the process before it has said so.
                signal.signal(number, signal.SIG_IGN if self.requested else handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        if self.loading:
            self.loading = False
            raise Interrupted

    def _see_to_it(self, reading: int) -> None:
        """Told of signals by the operating system, even while the main thread is deep in somebody's C code."""
        numbers = {signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGHUP}
        overdue: threading.Timer | None = None
        first = 0.0
        # At its end the pipe is empty and its other end closed.
        while received := os.read(reading, 1):
            if received[0] not in numbers:
                continue
            if overdue is not None:
                if received[0] != signal.SIGINT and time.monotonic() - first < _ECHO_SECONDS:
                    continue
                os._exit(EXIT_INTERRUPTED)
            first = time.monotonic()
            overdue = threading.Timer(_SAVE_SECONDS, self._overdue)
            overdue.daemon = True
            overdue.start()
        if overdue is not None:
            overdue.cancel()
        os.close(reading)

    def _overdue(self) -> None:
        with contextlib.suppress(Exception):
            self.save()
        print("interrupted; the engine did not answer. Run the same command again to go on", file=sys.stderr)
        sys.stderr.flush()
        os._exit(EXIT_INTERRUPTED)


def _forget_wakeup() -> None:
    with contextlib.suppress(ValueError):  # a thread forked; it has no wakeup descriptor
        signal.set_wakeup_fd(-1)
