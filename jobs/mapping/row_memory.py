"""The memory of rows on their way, from the batches that workers hold to the rows that the engine has not finished.

`preprocess.memory` is divided once: each worker has a share for what it decodes, downloads and caches, and the rows
have the rest. They are counted in bytes: a batch is handed to a worker only if it fits, together with all that is on
its way, and a row that has come back counts until the engine has finished it. So that a job goes on with the smallest
budget, one batch is handed out whatever it takes when the engine has no row to run and no worker has one.
"""

import queue
from collections.abc import Callable
from dataclasses import dataclass, replace

from run_batch.io.inputs.source import RowBatch
from run_batch.jobs.job.rows import MappedRow, MappedRows
from run_batch.jobs.mapping.worker_memory import WorkerMemory

# Of the budget, for all workers together; a worker needs no more than this at most.
_WORKERS_PART = 4
_MOST_PER_WORKER = 1 << 30
# A mapped row is in memory twice: at its worker while it is sent, and later in vLLM's own process.
_COPIES = 2
# Lists of token ids take that many bytes for each byte of their pickle.
_OBJECT_BYTES = 10
# The columns of a row are in memory three times: here for a retry, in the memory that they are sent in, and as values.
_INPUT_COPIES = 3
# Batches that workers hold take half of the rows' part at most, two for each worker.
_BATCHES = 4
# Rows in which the largest one is remembered, once or twice as many.
_WINDOW_ROWS = 256


@dataclass(frozen=True, slots=True)
class MemoryShares:
    """How a budget is divided, in bytes.

    Attributes:
        budget: all of it.
        rows: for all rows on their way.
        worker: for what one worker decodes, downloads and caches.
        batch: for the tensors of one batch; a worker gives back the rows that do not fit.
    """

    budget: int
    rows: int
    worker: int
    batch: int

    @classmethod
    def of(cls, budget: int, workers: int) -> "MemoryShares":
        """Divide `budget` bytes among rows and `workers` workers."""
        worker = min(_MOST_PER_WORKER, budget // (_WORKERS_PART * workers))
        rows = budget - workers * worker
        return cls(budget, rows, worker, rows // (_BATCHES * workers * _COPIES))

    @staticmethod
    def budget_for(rows: int, workers: int) -> int:
        """The budget whose part for rows is `rows` bytes."""
        part = -(-rows * _WORKERS_PART // (_WORKERS_PART - 1))
        return min(part, rows + workers * _MOST_PER_WORKER)

    def of_worker(self, turns: str) -> WorkerMemory:
        """What one worker is told; see WorkerMemory."""
        return WorkerMemory(self.batch, self.worker, self.rows, turns)


class RowMemory:
    """Counts the bytes of one pool's rows. The pool's thread calls it; rows are finished in any thread.

    Attributes:
        shares: how the budget is divided.
        is_short: whether the last batch did not fit.
        on_freed: called after bytes have been freed for which the pool waits.
    """

    def __init__(self, shares: MemoryShares) -> None:
        self.shares = shares
        self.is_short = False
        self.on_freed: Callable[[], None] = lambda: None
        # Rows are dropped wherever their last user is, also inside of the garbage collector: no lock can be taken.
        self._freed: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._held = self._input_bytes = self._batches_out = 0
        self._largest, self._largest_before, self._rows_seen = 0, 0, 0

    @property
    def row_bytes(self) -> int:
        """Of the largest of the rows that came back last, with its copies."""
        return max(self._largest, self._largest_before)

    @property
    def used(self) -> int:
        """Bytes of all rows on their way; a row that is being mapped counts as large as those before it."""
        while not self._freed.empty():
            self._held -= self._freed.get_nowait()
        return self._held + self._input_bytes + self._batches_out * self._batch_cost

    @property
    def _batch_cost(self) -> int:
        """Of a batch at a worker, without its input. Until the first row has come back, each worker gets one."""
        batch = self.shares.batch * _COPIES
        return max(batch, self.row_bytes) if self.row_bytes else batch * (_BATCHES - 1)

    def rows_to_hand_out(self, batch: RowBatch, is_awaited: bool) -> int:
        """How many rows of a batch, from its first one on, may be handed to a worker now; 0 if it must wait.

        Args:
            is_awaited: the engine has no row to run. Then, one batch always may.
        """
        rows = min(batch.records.num_rows, max(1, self.shares.batch * _COPIES // max(1, self.row_bytes)))
        while rows > 1 and _input_bytes(batch.slice(0, rows)) > self.shares.batch:
            rows //= 2
        self.is_short = True  # from here on, freed memory is told
        fits = self.used + self._batch_cost + _input_bytes(batch.slice(0, rows)) <= self.shares.rows
        self.is_short = not fits
        return rows if fits or (is_awaited and not self._batches_out) else 0

    def hand_out(self, batch: RowBatch) -> None:
        """Count a batch that a worker gets."""
        self._batches_out += 1
        self._input_bytes += _input_bytes(batch)

    def came_back(self, batch: RowBatch, left: RowBatch | None = None) -> None:
        """Count a batch no more, or only those of its rows that are left at the worker."""
        self._batches_out -= left is None
        self._input_bytes -= _input_bytes(batch) - (_input_bytes(left) if left is not None else 0)

    def hold(self, rows: MappedRows, nbytes: int, pickled_bytes: int) -> MappedRows:
        """Count the memory of mapped rows that have come back together, until the last one that is given is dropped.

        Args:
            nbytes: of the memory that they share.
            pickled_bytes: of all else.
        """
        # Rows of the same image share its tensors here, and each have them in vLLM's own process.
        in_engine = max(nbytes, sum(row.nbytes for row in rows if isinstance(row, MappedRow)))
        nbytes = nbytes + in_engine + _COPIES * _OBJECT_BYTES * pickled_bytes
        self._held += nbytes
        if self._rows_seen >= _WINDOW_ROWS:
            self._largest_before, self._largest, self._rows_seen = self._largest, 0, 0
        self._rows_seen += len(rows)
        self._largest = max(self._largest, -(-nbytes // len(rows)))
        memory = _HeldMemory(self, nbytes)
        return [replace(row, memory=memory) if isinstance(row, MappedRow) else row for row in rows]

    def free(self, nbytes: int) -> None:
        """Count bytes no more, from any thread."""
        self._freed.put(nbytes)
        if self.is_short:
            self.on_freed()


class _HeldMemory:
    """The memory of mapped rows; it counts as long as one of them has this object."""

    __slots__ = ("_memory", "_nbytes")

    def __init__(self, memory: RowMemory, nbytes: int) -> None:
        self._memory, self._nbytes = memory, nbytes

    def __del__(self) -> None:
        self._memory.free(self._nbytes)


def _input_bytes(batch: RowBatch) -> int:
    return _INPUT_COPIES * batch.records.nbytes
