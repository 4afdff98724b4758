"""The pool of worker processes: batches of input rows go out to them, mapped rows come back ahead of need.

One thread reads the input, hands batches to workers and collects what they return. It stops reading while enough
mapped rows wait for the engine. A worker that dies is replaced and its rows are mapped again; a row that kills its
worker twice while alone in it fails.
"""

import contextlib
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from multiprocessing.connection import Pipe, wait

from run_batch.io.inputs.source import InputError, RowBatch
from run_batch.jobs.job.errors import JobError, MayPassError, RunError, input_failed
from run_batch.jobs.job.pool_counts import PoolCounts
from run_batch.jobs.job.rows import MappedRows
from run_batch.jobs.mapping.backpressure import MappedQueue
from run_batch.jobs.mapping.busy_time import BusyTime
from run_batch.jobs.mapping.pending_batches import PendingBatches
from run_batch.jobs.mapping.row_deadlines import RowDeadlines
from run_batch.jobs.mapping.row_memory import MemoryShares, RowMemory
from run_batch.jobs.mapping.worker_main import RowsGivenBack, WorkerProblem, WorkerReady, WorkerSpec
from run_batch.jobs.mapping.worker_process import StartWorkers, WorkerProcess, lost_with, start_workers, tell_death
from run_batch.model.images.image_memory import DecodeTurns

BATCH_ROWS = 16
# One that is being mapped and one behind it, so that a worker never waits for the next.
_BATCHES_PER_WORKER = 2
_STARTS_BEFORE_GIVING_UP = 3
# An input that has no batch now is asked again after so long.
_PAUSE_SECONDS = 0.05


class WorkerTraceback(Exception):
    """The traceback of an exception in a worker process, as text."""


class WorkerPool:
    """Maps the rows of an iterator in worker processes.

    Attributes:
        memory: of the rows on their way.
    """

    def __init__(
        self,
        spec: WorkerSpec,
        batches: Iterator[RowBatch | None],
        count: int,
        start: StartWorkers = start_workers,
        deadlines: RowDeadlines | None = None,
        budget: int = 4 << 30,
    ) -> None:
        """Start `count` workers; they load the model's tokenizer and configs while the caller does other things.

        Args:
            batches: read by the pool's thread; None stands for one that is not there yet.
            start: starts worker processes.
            deadlines: of rows and of the start of workers; none when left out.
            budget: bytes that rows may take, here, in the workers and in the engine.
        """
        self._deadlines = deadlines or RowDeadlines()
        self.memory = RowMemory(MemoryShares.of(budget, count))
        self._turns = DecodeTurns()
        self._spec = replace(spec, memory=self.memory.shares.of_worker(self._turns.path))
        self._start = start
        self._starts_failed = self._deaths = 0
        self._pending = PendingBatches(batches, self.memory)
        self._mapped = MappedQueue()
        self._busy_time = BusyTime()
        self._is_awaited = False
        self._closing = threading.Event()
        self._wake_read, self._wake_write = Pipe(duplex=False)
        self.memory.on_freed = self._wake
        self._workers = start(self._spec, count)
        self._thread = threading.Thread(target=self._run, name="worker-pool", daemon=True)
        self._thread.start()

    def get(self, timeout: float) -> MappedRows | None:
        """The next mapped rows, in no fixed order; None when all rows have been given out.

        Args:
            timeout: in seconds; 0 if the caller has other rows to work on.

        Raises:
            queue.Empty: nothing within `timeout` seconds.
            JobError, RunError: the workers cannot go on.
        """
        self._is_awaited = timeout > 0
        if self._is_awaited and self.memory.is_short:
            self._wake()
        try:
            rows = self._mapped.get(timeout)
        finally:
            self._is_awaited = False
        if rows is not None:
            self._wake()
        return rows

    @property
    def rows_waiting(self) -> int:
        """Mapped rows that have not been given out."""
        return self._mapped.rows_waiting

    @property
    def error(self) -> Exception | None:
        """Why the workers cannot go on, before `get` raises it."""
        return self._mapped.error

    def counts(self) -> PoolCounts:
        """What the pool has done so far, and what waits now."""
        return PoolCounts(
            rows_mapped=self._mapped.rows_mapped,
            mapping_seconds=self._busy_time.seconds(),
            input_seconds=self._pending.input_seconds,
            rows_waiting=self._mapped.rows_waiting,
            bytes_waiting=self._mapped.bytes_waiting,
            workers=len(self._workers),
        )

    def close(self) -> None:
        """End all workers at once; rows that they hold are dropped."""
        self._closing.set()
        self._wake()
        self.memory.on_freed = lambda: None
        self._thread.join(timeout=5)
        for worker in self._workers:
            worker.end()
        self._turns.close()

    def _wake(self) -> None:
        """Make the pool's thread look again whether there is something to do."""
        if not self._wake_read.poll():
            self._wake_write.send_bytes(b"")

    def _run(self) -> None:
        try:
            self._loop()
        except InputError as error:
            self._mapped.end(input_failed(error))
        except Exception as error:
            self._mapped.end(error)

    def _loop(self) -> None:
        while not self._closing.is_set():
            self._hand_out()
            if not any(worker.batches for worker in self._workers):
                # Without another row that shows that mapping works, these are held back for no longer.
                if (self._pending.are_done() or self._pending.wait_for_results()) and (
                    hung := self._deadlines.release()
                ):
                    self._mapped.put(hung, 0)
                if self._pending.are_done():
                    self._mapped.end()
                    return
            connections = [worker.connection for worker in self._workers]
            seconds = _PAUSE_SECONDS if self._pending.is_paused else self._deadlines.tick
            for connection in wait([*connections, self._wake_read], timeout=seconds):
                if connection is self._wake_read:
                    self._wake_read.recv_bytes()
                else:
                    # One that was replaced together with another has no connection any more.
                    for worker in [w for w in self._workers if w.connection is connection]:
                        self._collect(worker)
            self._replace_overdue()

    def _hand_out(self) -> None:
        for _ in range(_BATCHES_PER_WORKER):
            for worker in self._workers:
                if len(worker.batches) >= _BATCHES_PER_WORKER or self._mapped.is_full():
                    continue
                batch = self._pending.take(self._is_awaited)
                if batch is None:
                    return
                self._send(worker, batch)

    def _send(self, worker: WorkerProcess, batch: RowBatch) -> None:
        # Imports torch, which takes a second: not before the workers have been started.
        from run_batch.jobs.mapping import shared_memory

        worker.batches.append(batch)
        self._count_busy()
        try:
            # If the worker is dead, its pipe reports that in _collect.
            with contextlib.suppress(ConnectionError):
                shared_memory.send(worker.connection, batch)
        except OSError as error:
            raise RunError(f"rows cannot be handed to the worker processes: {error}") from error

    def _collect(self, worker: WorkerProcess) -> None:
        try:
            answer, nbytes, pickled_bytes = worker.receive()
        except (EOFError, OSError):
            self._replace(worker)
            return
        if isinstance(answer, WorkerProblem):
            raise _error_of(answer)
        if isinstance(answer, WorkerReady):
            self._starts_failed = 0
            return
        batch = worker.batches.popleft()
        if isinstance(answer, RowsGivenBack):
            self._pending.give_back(batch)
        else:
            worker.batches.extendleft(self._pending.came_back(batch, len(answer)))
            rows = self.memory.hold(answer, nbytes, pickled_bytes)
            self._mapped.put(self._deadlines.mapped(worker, rows), nbytes)
        self._count_busy()

    def _replace(self, dead: WorkerProcess) -> None:
        """Start another worker in the place of a dead one, and have its batches mapped again."""
        if dead.loaded and dead.batches:
            failure = self._pending.retry_suspect(dead.batches.popleft())
            if failure is not None:
                self._mapped.put([failure], 0)
        if dead.loaded:
            self._deaths += 1
            tell_death(dead, self._deaths)
        lost = lost_with(dead, self._workers)
        self._end(lost)
        original = dead.original or dead
        if original in lost and not original.loaded and original.process is not None:
            self._starts_failed += 1
            if self._starts_failed >= _STARTS_BEFORE_GIVING_UP:
                code = original.process.returncode
                raise RunError(f"worker processes die while they start (exit code {code}); see the lines above")
        self._start_in_place_of(lost)

    def _replace_overdue(self) -> None:
        """Start other workers in the place of those that hang, and have their rows mapped again, each alone."""
        overdue = self._deadlines.overdue(self._workers)
        if overdue:
            for worker, stage in overdue:
                self._deadlines.retry(self._pending, worker.batches.popleft(), stage)
            hanging = [worker for worker, _ in overdue]
            self._end(hanging)
            self._start_in_place_of(hanging)

    def _end(self, lost: Sequence[WorkerProcess]) -> None:
        for worker in lost:
            worker.end()
            self._pending.retry(worker.batches)
            worker.batches.clear()
        self._count_busy()

    def _start_in_place_of(self, lost: Sequence[WorkerProcess]) -> None:
        for worker, successor in zip(lost, self._start(self._spec, len(lost)), strict=True):
            self._workers[self._workers.index(worker)] = successor

    def _count_busy(self) -> None:
        self._busy_time.set_workers(sum(bool(worker.batches) for worker in self._workers))


def _error_of(problem: WorkerProblem) -> Exception:
    text = problem.message
    error: JobError | RunError
    if problem.may_pass:
        error = MayPassError(f"rows cannot be mapped: {text}. This may pass: run the same command again later")
    else:
        error = JobError(text) if problem.bad_job else RunError(f"a worker process failed {text}")
    error.__cause__ = WorkerTraceback(problem.trace)  # shown by --verbose
    return error
