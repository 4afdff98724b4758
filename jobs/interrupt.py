"""SIGTERM and SIGINT: stop, save what is whole, and say so by the exit code."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from run_batch.jobs.errors import EXIT_INTERRUPTED, Interrupted


class StopRequest:
    """SIGTERM or SIGINT: an exception while the engine loads, a flag once rows are generated. A second one ends the
    process at once.

    Attributes:
        loading: no row has been generated yet.
        requested: a signal has come.
    """

    def __init__(self) -> None:
        self.loading = True
        self.requested = False

    @contextmanager
    def listening(self) -> Iterator[None]:
        before = {number: signal.signal(number, self._handle) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            os._exit(EXIT_INTERRUPTED)
        self.requested = True
        if self.loading:
            raise Interrupted
