"""The worker processes, as the engine's process sees them: rows go in, mapped rows come out, ahead of need.

One thread reads the input, hands batches to idle workers and collects what comes back. It stops reading while
enough mapped rows wait, so memory stays bounded however large the input is. A worker that dies is replaced and its
rows are mapped again; a row that kills its worker twice, alone in it, fails.
"""

import collections
import contextlib
import os
import pickle
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from multiprocessing.connection import Pipe, wait
from typing import TypeAlias

from run_batch.io.inputs.source import InputError, RowBatch
from run_batch.jobs.job.errors import JobError, RunError
from run_batch.jobs.job.rows import MappedRow, RowFailure
from run_batch.jobs.mapping.worker_main import WorkerProblem, WorkerReady, WorkerSpec
from run_batch.jobs.mapping.worker_process import WORKER_ENVIRONMENT, _Worker
from run_batch.jobs.watch.pool_counts import PoolCounts

BATCH_ROWS = 16
# Mapped rows that wait for the engine: enough to ride out an uneven stretch of input, little enough to hold.
MAX_WAITING_ROWS = 2048
MAX_WAITING_BYTES = 512 << 20
# A batch in work and one behind it, so that a worker never waits for the next.
_TASKS_PER_WORKER = 2
_STARTS_BEFORE_GIVING_UP = 3


MappedRows: TypeAlias = list[MappedRow | RowFailure]


class WorkerPool:
    """Maps the rows of an iterator in worker processes."""

    def __init__(self, spec: WorkerSpec, batches: Iterator[RowBatch], count: int) -> None:
        """Start `count` workers; they load the model's tokenizer and configs while the caller does other things."""
        self._spec = spec
        self._batches = batches
        self._ready: queue.SimpleQueue[tuple[MappedRows, int] | Exception | None] = queue.SimpleQueue()
        self._retries: collections.deque[RowBatch] = collections.deque()
        self._deaths: collections.Counter[int] = collections.Counter()
        self._starts_failed = 0
        self._input_done = False
        self._waiting_rows = 0
        self._waiting_bytes = 0
        self._rows_mapped = 0
        self._mapping_seconds = self._input_seconds = 0.0
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._wake_read, self._wake_write = Pipe(duplex=False)
        self._workers = self._start(count)
        self._thread = threading.Thread(target=self._run, name="worker-pool", daemon=True)
        self._thread.start()

    def get(self, timeout: float) -> MappedRows | None:
        """The next mapped rows, in no fixed order; None when all rows have been given out.

        Raises:
            queue.Empty: nothing within `timeout` seconds.
            JobError, RunError: the workers cannot go on.
        """
        item = self._ready.get(timeout=timeout) if timeout else self._ready.get_nowait()
        if isinstance(item, Exception):
            raise item
        if item is None:
            return None
        rows, nbytes = item
        with self._lock:
            self._waiting_rows -= len(rows)
            self._waiting_bytes -= nbytes
        self._wake()
        return rows

    def counts(self) -> PoolCounts:
        """What the pool has done so far."""
        with self._lock:
            now = time.monotonic()
            under_way = sum(now - w.busy_since for w in self._workers if w.busy_since is not None)
            return PoolCounts(
                rows_mapped=self._rows_mapped,
                mapping_seconds=self._mapping_seconds + under_way,
                input_seconds=self._input_seconds,
                rows_waiting=self._waiting_rows,
                bytes_waiting=self._waiting_bytes,
                workers=len(self._workers),
            )

    def close(self) -> None:
        """End all workers at once; rows still in them are dropped."""
        self._closing.set()
        self._wake()
        self._thread.join(timeout=5)
        for worker in self._workers:
            worker.end()

    def _wake(self) -> None:
        if not self._wake_read.poll():
            self._wake_write.send_bytes(b"")

    def _start(self, count: int) -> list[_Worker]:
        """Start one worker, which copies itself for the others."""
        pipes = [Pipe(duplex=True) for _ in range(count)]
        descriptors = [theirs.fileno() for _, theirs in pipes]
        arguments = ", ".join(map(str, descriptors))
        process = subprocess.Popen(
            [sys.executable, "-c", f"from run_batch.jobs.mapping.worker_main import main; main({arguments})"],
            pass_fds=descriptors,
            stdin=subprocess.DEVNULL,
            env={**os.environ, **WORKER_ENVIRONMENT},
        )
        for _, theirs in pipes:
            theirs.close()
        first, *others = (ours for ours, _ in pipes)
        first.send_bytes(pickle.dumps(self._spec))
        return [_Worker(process, first), *(_Worker(None, ours) for ours in others)]

    def _run(self) -> None:
        try:
            self._loop()
        except InputError as error:
            self._ready.put(RunError(str(error)))
        except Exception as error:
            self._ready.put(error)

    def _loop(self) -> None:
        while not self._closing.is_set():
            self._hand_out()
            if self._input_done and not self._retries and not any(worker.tasks for worker in self._workers):
                self._ready.put(None)
                return
            connections = [worker.connection for worker in self._workers]
            for connection in wait([*connections, self._wake_read], timeout=1):
                if connection is self._wake_read:
                    self._wake_read.recv_bytes()
                else:
                    self._collect(next(w for w in self._workers if w.connection is connection))

    def _hand_out(self) -> None:
        # Imports torch, which takes a second: not before the workers have been started.
        from run_batch.jobs.mapping import shared_memory as transport

        for _ in range(_TASKS_PER_WORKER):
            for worker in self._workers:
                if len(worker.tasks) >= _TASKS_PER_WORKER or self._is_full():
                    continue
                task = self._next_task()
                if task is None:
                    return
                worker.tasks.append(task)
                self._count_busy(worker)
                try:
                    # Where the worker is dead, its end of the pipe tells so, in _collect.
                    with contextlib.suppress(ConnectionError):
                        transport.send(worker.connection, task)
                except OSError as error:
                    raise RunError(f"rows cannot be handed to the worker processes: {error}") from error

    def _count_busy(self, worker: _Worker) -> None:
        """Its tasks have changed: count how long it has had any."""
        now = time.monotonic()
        with self._lock:
            if worker.busy_since is not None:
                self._mapping_seconds += now - worker.busy_since
            worker.busy_since = now if worker.tasks else None

    def _is_full(self) -> bool:
        return self._waiting_rows >= MAX_WAITING_ROWS or self._waiting_bytes >= MAX_WAITING_BYTES

    def _next_task(self) -> RowBatch | None:
        if self._retries:
            return self._retries.popleft()
        started = time.monotonic()
        batch = next(self._batches, None)
        self._input_seconds += time.monotonic() - started
        if batch is None:
            self._input_done = True
        return batch

    def _collect(self, worker: _Worker) -> None:
        from run_batch.jobs.mapping import shared_memory as transport

        try:
            answer, nbytes = transport.receive(worker.connection)
        except (EOFError, OSError):
            self._replace(worker)
            return
        if isinstance(answer, WorkerProblem):
            raise self._problem(answer)
        if isinstance(answer, WorkerReady):
            worker.ready(answer.pid)
            self._starts_failed = 0
            return
        worker.tasks.popleft()
        self._count_busy(worker)
        self._put(answer, nbytes)

    def _put(self, rows: MappedRows, nbytes: int) -> None:
        with self._lock:
            self._waiting_rows += len(rows)
            self._waiting_bytes += nbytes
            self._rows_mapped += len(rows)
        self._ready.put((rows, nbytes))

    @staticmethod
    def _problem(problem: WorkerProblem) -> Exception:
        if problem.bad_job:
            return JobError(problem.message)
        return RunError(f"a worker process failed {problem.message}")

    def _replace(self, dead: _Worker) -> None:
        """Start another worker in the place of a dead one, and have its rows mapped again."""
        dead.end()
        if not dead.loaded and dead.process is not None:
            self._starts_failed += 1
            if self._starts_failed >= _STARTS_BEFORE_GIVING_UP:
                code = dead.process.returncode
                raise RunError(f"worker processes die while they start (exit code {code}); see the lines above")
        tasks = list(dead.tasks)
        if tasks and dead.loaded:
            self._retry_suspect(tasks.pop(0))
        self._retries.extend(tasks)
        dead.tasks.clear()
        self._count_busy(dead)
        (self._workers[self._workers.index(dead)],) = self._start(1)

    def _retry_suspect(self, task: RowBatch) -> None:
        """The task that a worker died of: row by row, and a single row that did it twice fails."""
        # Only deaths with a row alone count: a worker that something else kills has rows in it, too.
        if task.records.num_rows == 1:
            self._deaths[task.start] += 1
        if self._deaths[task.start] >= 2:
            self._put([RowFailure(task.start, "worker_died", "mapping this row kills the worker process")], 0)
            return
        self._retries.extend(task.slice(offset, 1) for offset in range(task.records.num_rows))
