"""How long the workers of a pool have had batches to map."""

import threading
import time


class BusyTime:
    """Sums the seconds of workers that hold batches. One thread sets how many do, another one reads the sum."""

    def __init__(self) -> None:
        self._workers = 0
        self._seconds = 0.0
        self._counted_until = time.monotonic()
        self._lock = threading.Lock()

    def set_workers(self, workers: int) -> None:
        """From now on, `workers` workers hold batches."""
        with self._lock:
            self._count()
            self._workers = workers

    def seconds(self) -> float:
        """The sum up to now, over all workers: two workers that are busy for a second make two seconds."""
        with self._lock:
            self._count()
            return self._seconds

    def _count(self) -> None:
        now = time.monotonic()
        self._seconds += self._workers * (now - self._counted_until)
        self._counted_until = now
