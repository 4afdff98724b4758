"""Batches that no worker holds: the input's next one, and those to retry because their worker died."""

import collections
import time
from collections.abc import Iterable, Iterator

from run_batch.io.inputs.source import RowBatch
from run_batch.jobs.job.rows import RowFailure

_DEATHS_PER_ROW = 2
# Rows that may hang, and are taken one by one, before new rows are taken.
_OVERDUE_AT_ONCE = 4


class PendingBatches:
    """The batches of an iterator, and in front of them those that are given back for a retry.

    Attributes:
        input_seconds: time spent waiting for the iterator.
        is_paused: whether the iterator gave None when it was asked last: it has no batch now, and may have one later.
    """

    def __init__(self, batches: Iterator[RowBatch | None]) -> None:
        self.input_seconds = 0.0
        self.is_paused = False
        self._input = batches
        self._input_ended = False
        self._retries: collections.deque[RowBatch] = collections.deque()
        self._overdue: collections.deque[RowBatch] = collections.deque()
        self._overdue_before: set[int] = set()
        self._overdue_taken = 0
        self._deaths: collections.Counter[int] = collections.Counter()

    def are_done(self) -> bool:
        """Whether the input has ended and nothing waits for a retry."""
        return self._input_ended and not self._retries and not self._overdue

    def take(self) -> RowBatch | None:
        """The next batch to map; None if there is none now."""
        if self._retries:
            return self._retries.popleft()
        # Between rows that may hang there are new ones, which show whether mapping works at all.
        if self._overdue and self._overdue_taken < _OVERDUE_AT_ONCE:
            self._overdue_taken += 1
            return self._overdue.popleft()
        self._overdue_taken = 0
        batch = self._next_new()
        return self._overdue.popleft() if batch is None and self._overdue else batch

    def _next_new(self) -> RowBatch | None:
        if self._input_ended:
            return None
        started = time.monotonic()
        try:
            batch = next(self._input)
        except StopIteration:
            batch, self._input_ended = None, True
        self.input_seconds += time.monotonic() - started
        self.is_paused = batch is None and not self._input_ended
        return batch

    def retry(self, batches: Iterable[RowBatch]) -> None:
        """Give back batches that were still queued at a worker that died."""
        self._retries.extend(batches)

    def retry_overdue(self, batch: RowBatch) -> bool:
        """Give back a batch that a worker hung on, so that each of its rows is mapped alone.

        Returns:
            Whether it was retried; a row is not that has been overdue before, and was alone now.
        """
        if batch.records.num_rows == 1 and batch.start in self._overdue_before:
            return False
        self._overdue_before.update(range(batch.start, batch.stop))
        self._overdue.extend(batch.slice(offset, 1) for offset in range(batch.records.num_rows))
        return True

    def retry_suspect(self, batch: RowBatch) -> RowFailure | None:
        """Give back the batch that a worker died on, so that each of its rows is mapped alone.

        Returns:
            The result of a row that has now killed its worker twice while alone in it. It is not retried.
        """
        # Only deaths on a row alone count: a worker that is killed from outside holds rows, too.
        if batch.records.num_rows == 1:
            self._deaths[batch.start] += 1
        if self._deaths[batch.start] >= _DEATHS_PER_ROW:
            return RowFailure(batch.start, "worker_died", "mapping this row kills the worker process")
        self._retries.extend(batch.slice(offset, 1) for offset in range(batch.records.num_rows))
        return None
