"""Batches that no worker holds: the input's next one, and those to retry because their worker died."""

import collections
import time
from collections.abc import Iterable, Iterator

from run_batch.io.inputs.source import RowBatch
from run_batch.jobs.job.rows import RowFailure
from run_batch.jobs.mapping.row_memory import RowMemory

_DEATHS_PER_ROW = 2
# Rows that may hang, and are taken one by one, before new rows are taken.
_OVERDUE_AT_ONCE = 4


class PendingBatches:
    """The batches of an iterator, and in front of them those that are given back for a retry.

    Attributes:
        input_seconds: time spent waiting for the iterator.
        is_paused: whether the iterator gave None when it was asked last: it has no batch now, and may have one later.
    """

    def __init__(self, batches: Iterator[RowBatch | None], memory: RowMemory) -> None:
        """Take batches from an iterator.

        Args:
            memory: counts the batches that workers hold.
        """
        self._memory = memory
        self.input_seconds = 0.0
        self.is_paused = False
        self._input = (batch for batch in batches if batch is None or batch.records.num_rows)
        self._input_ended = False
        self._retries: collections.deque[RowBatch] = collections.deque()
        self._overdue: collections.deque[RowBatch] = collections.deque()
        self._overdue_before: set[int] = set()
        self._overdue_taken = 0
        self._deaths: collections.Counter[int] = collections.Counter()

    def are_done(self) -> bool:
        """Whether the input has ended and nothing waits for a retry."""
        return self._input_ended and not self._retries and not self._overdue

    def wait_for_results(self) -> bool:
        """Whether nothing waits for a retry, and the input has no batch before rows that were given out are taken."""
        return self.is_paused and not self._retries and not self._overdue

    def take(self, is_awaited: bool) -> RowBatch | None:
        """The next batch to map, cut to what fits into the memory; None if there is none now, or no row fits.

        Args:
            is_awaited: see RowMemory.rows_to_hand_out.
        """
        batch = self._next()
        if batch is None:
            return None
        rows = self._memory.rows_to_hand_out(batch, is_awaited)
        if rows < batch.records.num_rows:
            self._retries.appendleft(batch.slice(rows, batch.records.num_rows - rows))
        if not rows:
            return None
        batch = batch.slice(0, rows)
        self._memory.hand_out(batch)
        return batch

    def _next(self) -> RowBatch | None:
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

    def came_back(self, batch: RowBatch, rows: int) -> list[RowBatch]:
        """Note that the first rows of a batch have been mapped; what is left of it at the worker, as a list."""
        rest = batch.records.num_rows - rows
        left = [batch.slice(rows, rest)] if rest else []
        self._memory.came_back(batch, *left)
        return left

    def give_back(self, batch: RowBatch) -> None:
        """Give back the rest of a batch that a worker has found too large to map all of it."""
        self._memory.came_back(batch)
        self._retries.appendleft(batch)

    def retry(self, batches: Iterable[RowBatch]) -> None:
        """Give back batches that were still queued at a worker that died."""
        for batch in batches:
            self._memory.came_back(batch)
            self._retries.append(batch)

    def retry_overdue(self, batch: RowBatch) -> bool:
        """Give back a batch that a worker hung on, so that each of its rows is mapped alone.

        Returns:
            Whether it was retried; a row is not that has been overdue before, and was alone now.
        """
        self._memory.came_back(batch)
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
        self._memory.came_back(batch)
        # Only deaths on a row alone count: a worker that is killed from outside holds rows, too.
        if batch.records.num_rows == 1:
            self._deaths[batch.start] += 1
        if self._deaths[batch.start] >= _DEATHS_PER_ROW:
            return RowFailure(batch.start, "worker_died", "mapping this row kills the worker process")
        self._retries.extend(batch.slice(offset, 1) for offset in range(batch.records.num_rows))
        return None
