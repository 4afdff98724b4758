"""The pool of worker processes: backpressure, workers that die or fail, and its counts."""

import contextlib
import queue
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Pipe
from pathlib import Path
from typing import Any

import pytest
from light_spec import BATCH_ROWS, LightSpec, batch
from stand_in_workers import fork_workers

from run_batch.io.inputs.source import InputError, RowBatch
from run_batch.jobs.job.errors import JobError, RunError
from run_batch.jobs.job.rows import MappedRow, RowFailure
from run_batch.jobs.mapping import backpressure, shared_memory
from run_batch.jobs.mapping.worker_main import RowsGivenBack, WorkerReady
from run_batch.jobs.mapping.worker_memory import WorkerMemory
from run_batch.jobs.mapping.worker_pool import WorkerPool
from run_batch.jobs.mapping.worker_process import WorkerProcess, start_workers

WORKERS = 2
# Two batches in each worker: one that is being mapped and one behind it.
ROWS_IN_WORKERS = 2 * WORKERS * BATCH_ROWS


class Input:
    """An input of batches that counts the rows that have been read of it."""

    def __init__(self, batches: int) -> None:
        self.rows_read = 0
        self._batches = batches

    def __iter__(self) -> Iterator[RowBatch]:
        for index in range(self._batches):
            self.rows_read += BATCH_ROWS
            yield batch(index)


@contextlib.contextmanager
def pool_of(
    spec: Any,
    batches: Iterator[RowBatch | None],
    start: Any = fork_workers,
    workers: int = WORKERS,
    budget: int = 4 << 30,
) -> Iterator[WorkerPool]:
    pool = WorkerPool(spec, batches, workers, start, budget=budget)
    try:
        yield pool
    finally:
        pool.close()


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def all_rows(pool: WorkerPool) -> list[MappedRow | RowFailure]:
    rows: list[MappedRow | RowFailure] = []
    while (found := pool.get(timeout=30)) is not None:
        rows += found
    return rows


def indices(rows: list[MappedRow | RowFailure]) -> list[int]:
    return sorted(row.row for row in rows)


def test_an_input_that_pauses_is_asked_again_and_has_not_ended() -> None:
    taken = 0

    def batches() -> Iterator[RowBatch | None]:
        yield batch(0)
        while taken < BATCH_ROWS:
            yield None
        yield batch(1)

    with pool_of(LightSpec(), batches()) as pool:
        first = pool.get(timeout=30)
        with pytest.raises(queue.Empty):
            pool.get(timeout=0.3)
        assert first is not None
        taken = len(first)
        assert indices(first + all_rows(pool)) == list(range(2 * BATCH_ROWS))


def test_the_input_is_read_no_further_while_enough_mapped_rows_wait() -> None:
    rows = Input(4 * backpressure.MAX_WAITING_ROWS // BATCH_ROWS)
    with pool_of(LightSpec(), iter(rows)) as pool:
        wait_until(lambda: pool.counts().rows_waiting >= backpressure.MAX_WAITING_ROWS)
        time.sleep(0.5)
        assert rows.rows_read <= backpressure.MAX_WAITING_ROWS + ROWS_IN_WORKERS
        # It goes on as rows are taken, and none is lost on the way.
        assert indices(all_rows(pool)) == list(range(4 * backpressure.MAX_WAITING_ROWS))
        assert pool.counts().rows_waiting == pool.counts().bytes_waiting == 0


def test_the_input_is_read_no_further_while_mapped_rows_take_too_much_memory() -> None:
    rows = Input(20)
    with pool_of(LightSpec(tensor_bytes=100_000), iter(rows), budget=16_000_000) as pool:
        wait_until(lambda: pool.memory.is_short and pool.counts().rows_waiting > 0)
        time.sleep(0.5)
        shares = pool.memory.shares
        assert rows.rows_read < 10 * BATCH_ROWS and pool.memory.used <= shares.rows + 2 * shares.batch, "and one batch"
        assert indices(all_rows(pool)) == list(range(20 * BATCH_ROWS))
    assert pool.memory.used == 0


def test_a_worker_maps_no_more_of_a_batch_than_its_memory_holds() -> None:
    (worker,) = fork_workers(LightSpec(tensor_bytes=1000, memory=WorkerMemory(batch_bytes=2500)), 1)
    try:
        assert isinstance(worker.receive().value, WorkerReady)
        shared_memory.send(worker.connection, batch(0))
        rows, mapped = worker.receive().value, 0
        while not isinstance(rows, RowsGivenBack):
            mapped += len(rows)
            rows = worker.receive().value
        assert mapped == 4, "two parts of two rows each"
    finally:
        worker.end()


def test_a_worker_gives_back_the_rows_of_a_batch_that_take_too_much_and_all_are_mapped_once() -> None:
    with pool_of(LightSpec(tensor_bytes=1_000_000), iter(Input(2)), budget=16_000_000) as pool:
        most, found = 0, []
        while (rows := pool.get(timeout=30)) is not None:
            found += indices(rows)
            del rows
            most = max(most, pool.memory.used)
    assert sorted(found) == list(range(2 * BATCH_ROWS))
    # A batch of them would take 32 MB, with the copy in the engine.
    assert most <= pool.memory.shares.rows + 2 * 2 * 1_000_000


def test_a_row_that_takes_more_than_the_budget_is_mapped_all_the_same() -> None:
    held = []
    with pool_of(LightSpec(tensor_bytes=1_000_000), iter(Input(1)), budget=1_000_000) as pool:
        while (rows := pool.get(timeout=30)) is not None:
            held.append(rows)  # as suspects are, which wait until others have run
    assert sum(map(len, held)) == BATCH_ROWS


def test_a_large_row_has_a_memory_of_its_own_and_small_ones_share_theirs() -> None:
    with pool_of(LightSpec(tensor_bytes=1000), iter(Input(1))) as pool:
        assert len(pool.get(timeout=30) or []) == BATCH_ROWS
    with pool_of(LightSpec(tensor_bytes=9_000_000), iter([batch(0).slice(0, 3)])) as pool:
        first, second = pool.get(timeout=30), pool.get(timeout=30)
        assert first is not None and second is not None and len(first) == len(second) == 1
        used = pool.memory.used
        del first
        assert pool.memory.used <= used - 2 * 9_000_000


def test_the_input_is_read_on_as_soon_as_there_is_room() -> None:
    with pool_of(LightSpec(), iter(Input(1000))) as pool:
        started = time.monotonic()
        for _ in range(10):
            wait_until(lambda: pool.counts().rows_waiting >= backpressure.MAX_WAITING_ROWS)
            while pool.counts().rows_waiting >= backpressure.MAX_WAITING_ROWS:
                assert pool.get(timeout=30)
        # Without being woken, the pool's thread would look once a second.
        assert time.monotonic() - started < 8


def test_no_row_within_the_timeout_is_not_the_end() -> None:
    with pool_of(LightSpec(seconds=0.5), iter(Input(1))) as pool:
        with pytest.raises(queue.Empty):
            pool.get(timeout=0)
        assert len(all_rows(pool)) == BATCH_ROWS


def test_the_rows_of_a_worker_that_died_are_mapped_again_with_their_ids_and_the_deadly_one_fails() -> None:
    with pool_of(LightSpec(deadly_row=20), iter(Input(6))) as pool:
        rows = sorted(all_rows(pool), key=lambda row: row.row)
    assert [row.row for row in rows] == list(range(6 * BATCH_ROWS))
    ids = [row.engine_input[0] if isinstance(row, MappedRow) else row.kind for row in rows]
    assert ids == [f"rows:{i}" if i != 20 else "worker_died" for i in range(6 * BATCH_ROWS)]


@pytest.mark.parametrize("name", ["load_error", "map_error"])
def test_an_error_in_a_worker_ends_the_run_as_the_jobs_fault_or_as_a_bug(name: str) -> None:
    with (
        pool_of(LightSpec(**{name: JobError("model.path: no such folder")}), iter(Input(2))) as pool,
        pytest.raises(JobError, match=r"^model.path: no such folder$"),
    ):
        all_rows(pool)
    with (
        pool_of(LightSpec(**{name: KeyError("a bug")}), iter(Input(2))) as pool,
        pytest.raises(RunError, match=r"(?s)^a worker process failed .*KeyError: 'a bug'"),
    ):
        all_rows(pool)


def test_an_input_that_cannot_be_read_ends_the_run() -> None:
    def damaged() -> Iterator[RowBatch]:
        yield batch(0)
        raise InputError("rows.parquet is damaged")

    with pool_of(LightSpec(), damaged()) as pool, pytest.raises(JobError, match=r"^rows.parquet is damaged$"):
        all_rows(pool)


class LimitedSpec(LightSpec):
    """In processes that may not have as much address space as they like, as under `ulimit -v`."""

    def load(self) -> LightSpec:
        resource.setrlimit(resource.RLIMIT_AS, (1 << 40, 1 << 40))
        return super().load()


def test_rows_are_mapped_where_address_space_is_limited() -> None:
    with pool_of(LimitedSpec(tensor_bytes=200_000), iter(Input(4)), budget=1 << 42) as pool:
        assert indices(all_rows(pool)) == list(range(4 * BATCH_ROWS))
        assert all(worker.arena is None for worker in pool._workers)


class DyingStarts:
    """Starts `deaths` processes that die at once, and workers after those."""

    def __init__(self, deaths: int) -> None:
        self.deaths = deaths

    def __call__(self, spec: Any, count: int) -> list[WorkerProcess]:
        return [self._start(spec) for _ in range(count)]

    def _start(self, spec: Any) -> WorkerProcess:
        if self.deaths == 0:
            return fork_workers(spec, 1)[0]
        self.deaths -= 1
        ours, theirs = Pipe()
        process = subprocess.Popen([sys.executable, "-S", "-c", "raise SystemExit(3)"])
        process.wait()
        theirs.close()
        return WorkerProcess(process, ours)


def test_workers_that_die_while_they_start_are_started_again_but_not_for_ever() -> None:
    with pool_of(LightSpec(), iter(Input(6)), DyingStarts(2)) as pool:
        assert indices(all_rows(pool)) == list(range(6 * BATCH_ROWS))
    with (
        pool_of(LightSpec(), iter(Input(6)), DyingStarts(100)) as pool,
        pytest.raises(RunError, match=r"die while they start \(exit code 3\)"),
    ):
        all_rows(pool)


def test_workers_whose_first_was_killed_before_it_forked_the_others_are_forked_again_by_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    started: list[int] = []

    def start(spec: Any, count: int) -> list[WorkerProcess]:
        started.append(count)
        workers = start_workers(spec, count)
        if len(started) <= 2 and workers[0].process is not None:
            workers[0].process.kill()  # as the kernel does when memory is short
        return workers

    with pool_of(LightSpec(), iter(Input(12)), start, workers=4) as pool:
        assert indices(all_rows(pool)) == list(range(12 * BATCH_ROWS))
        assert started == [4, 4, 4], "each of these processes imports torch and vLLM"
        assert pool.counts().workers == 4


def test_a_row_is_not_to_blame_for_a_worker_that_died_before_it_was_ready() -> None:
    with pool_of(LightSpec(), iter([batch(0).slice(3, 1)]), DyingStarts(2), workers=1) as pool:
        (row,) = all_rows(pool)
    assert isinstance(row, MappedRow) and row.row == 3


def test_the_counts_have_the_seconds_of_all_workers_and_of_the_input() -> None:
    def slow_input() -> Iterator[RowBatch]:
        yield batch(0)
        yield batch(1)
        time.sleep(0.3)

    with pool_of(LightSpec(seconds=0.5), slow_input()) as pool:
        wait_until(lambda: pool.counts().mapping_seconds > 0.1)
        all_rows(pool)
        counts = pool.counts()
        assert (counts.rows_mapped, counts.workers) == (2 * BATCH_ROWS, WORKERS)
        assert counts.mapping_seconds >= 2 * 0.5, "of both workers together"
        assert 0.3 <= counts.input_seconds < 1.0
        time.sleep(0.1)
        assert pool.counts().mapping_seconds == counts.mapping_seconds, "nothing is mapped any more"
