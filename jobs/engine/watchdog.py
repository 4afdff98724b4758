"""A thread that ends a step of the engine when it takes too long, whatever it hangs in."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Watchdog:
    """Calls a function when a step exceeds its time limit.

    Attributes:
        seconds: the time limit of a step; 0 for none.
        fired: the last step that was watched has exceeded it.
    """

    def __init__(self, seconds: float, on_hang: Callable[[], None]) -> None:
        """Start the thread.

        Args:
            on_hang: makes the step fail, or ends the process; called in the thread.
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
        """Watch one step, which runs inside."""
        self.fired = False
        self._deadline = time.monotonic() + self.seconds
        try:
            yield
        finally:
            self._deadline = float("inf")

    def close(self) -> None:
        """End the thread."""
        self._closed.set()

    def _run(self) -> None:
        while not self._closed.wait(min(1.0, self.seconds / 4)):
            if time.monotonic() > self._deadline:
                self._deadline = float("inf")
                self.fired = True
                self._on_hang()
