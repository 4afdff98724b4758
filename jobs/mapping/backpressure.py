"""Backpressure from the engine to the worker pool: the bounded queue of mapped rows between them.

While the queue is full, the pool hands no batch to its workers and reads no input: it does not run ahead of the engine
by more rows than that. How much memory the rows may take is row_memory.py's.
"""

import queue
import threading

from run_batch.jobs.job.rows import MappedRows

# Enough to keep the engine busy through a stretch of rows that are slow to map.
MAX_WAITING_ROWS = 2048


class MappedQueue:
    """Mapped rows that wait for the engine. One thread puts them in, another one gets them.

    The bound does not make `put` wait: batches that workers hold when the queue becomes full still fit.

    Attributes:
        rows_mapped: rows put in so far.
        rows_waiting: rows put in and not given out yet.
        bytes_waiting: bytes of the tensors of those.
        error: the one that it was ended with, before it is raised.
    """

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.rows_mapped = self.rows_waiting = self.bytes_waiting = 0
        self._items: queue.SimpleQueue[tuple[MappedRows, int] | Exception | None] = queue.SimpleQueue()
        self._lock = threading.Lock()

    def is_full(self) -> bool:
        """Whether so many rows wait that no more shall be mapped."""
        return self.rows_waiting >= MAX_WAITING_ROWS

    def put(self, rows: MappedRows, nbytes: int) -> None:
        """Add mapped rows whose tensors take `nbytes` bytes."""
        with self._lock:
            self.rows_mapped += len(rows)
            self.rows_waiting += len(rows)
            self.bytes_waiting += nbytes
        self._items.put((rows, nbytes))

    def end(self, error: Exception | None = None) -> None:
        """Add no more: once the rows before are given out, `get` gives None, or raises `error`."""
        self.error = error
        self._items.put(error)

    def get(self, timeout: float) -> MappedRows | None:
        """The next mapped rows, or None at the end.

        Raises:
            queue.Empty: nothing within `timeout` seconds.
            Exception: the one that `end` was given.
        """
        item = self._items.get(timeout=timeout) if timeout else self._items.get_nowait()
        if isinstance(item, Exception):
            raise item
        if item is None:
            return None
        rows, nbytes = item
        with self._lock:
            self.rows_waiting -= len(rows)
            self.bytes_waiting -= nbytes
        return rows
