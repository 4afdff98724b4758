"""Watches the engine's steps from a thread: one that takes too long is ended, whatever it hangs in."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Watchdog:
    """Attributes:
    seconds: the longest that a step may take; 0 for no limit.
    fired: the last step that was watched took longer.
    """

    def __init__(self, seconds: float, on_hang: Callable[[], None]) -> None:
        """Args:
        on_hang: ends the step, in the watchdog's thread; the step then fails, or the process ends.
        """
        self.seconds = seconds
        self.fired = False
        self._on_hang = on_hang
        self._deadline = float("inf")
        self._closed = threading.Event()
        if seconds:
            threading.Thread(target=self._run, name="watchdog", daemon=True).start()

    @contextmanager
    def watching(self) -> Iterator[None]:
        self.fired = False
        self._deadline = time.monotonic() + self.seconds
        try:
            yield
        finally:
            self._deadline = float("inf")

    def close(self) -> None:
        self._closed.set()

    def _run(self) -> None:
        while not self._closed.wait(min(1.0, self.seconds / 4)):
            if time.monotonic() > self._deadline:
                self._deadline = float("inf")
                self.fired = True
                self._on_hang()
