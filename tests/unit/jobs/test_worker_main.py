"""Worker processes as they are started: one that loads the job, and copies that it forks of itself."""

import errno
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from light_spec import BATCH_ROWS, LightSpec, batch

from run_batch.jobs.job.errors import JobError, MayPassError
from run_batch.jobs.job.rows import MappedRow
from run_batch.jobs.mapping import shared_memory, worker_main
from run_batch.jobs.mapping.worker_main import WorkerReady
from run_batch.jobs.mapping.worker_pool import WorkerPool
from run_batch.jobs.mapping.worker_process import WorkerProcess, start_workers


@pytest.fixture(autouse=True)
def _importable_spec(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))


@pytest.fixture
def workers() -> Iterator[list[WorkerProcess]]:
    """Four workers that are ready."""
    spec: Any = LightSpec()
    started = start_workers(spec, 4)
    for worker in started:
        assert isinstance(receive(worker), WorkerReady)
    yield started
    for worker in started:
        worker.end()


def receive(worker: WorkerProcess) -> Any:
    assert worker.connection.poll(20), "the worker neither answers nor is seen to be dead"
    return worker.receive().value


def pid_of(worker: WorkerProcess) -> int:
    """The process that maps a batch for this worker."""
    shared_memory.send(worker.connection, batch(0))
    row = receive(worker)[0]
    assert isinstance(row, MappedRow)
    return int(row.engine_input[1])


def has_ended(pid: int) -> bool:
    """Whether a process ends within 20 seconds."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.01)
    return False


def test_the_first_worker_copies_itself_for_the_others(workers: list[WorkerProcess]) -> None:
    first, *copies = [pid_of(worker) for worker in workers]
    assert workers[0].process is not None and first == workers[0].process.pid
    assert len(set(copies)) == 3 and sorted(copies) == sorted(child.pid for child in psutil.Process(first).children())


@pytest.mark.parametrize("order", [(3, 0, 1, 2), (0, 2, 1, 3)])
def test_a_dead_worker_closes_its_pipe_while_its_siblings_live(
    workers: list[WorkerProcess], order: tuple[int, ...]
) -> None:
    pids = [pid_of(worker) for worker in workers]
    alive = set(range(4))
    for index in order:
        os.kill(pids[index], signal.SIGKILL)
        with pytest.raises((EOFError, ConnectionError)):
            receive(workers[index])
        alive.remove(index)
        assert [pid_of(workers[other]) for other in alive] == [pids[other] for other in alive]


@pytest.mark.parametrize("order", [(3, 0, 1, 2), (0, 2, 1, 3)])
def test_a_worker_ends_when_its_own_pipe_is_closed(workers: list[WorkerProcess], order: tuple[int, ...]) -> None:
    pids = [pid_of(worker) for worker in workers]
    alive = set(range(4))
    for index in order:
        workers[index].connection.close()
        assert has_ended(pids[index])
        alive.remove(index)
        assert [pid_of(workers[other]) for other in alive] == [pids[other] for other in alive]


def test_a_pool_maps_in_all_its_processes_and_ends_them_when_it_closes() -> None:
    spec: Any = LightSpec(seconds=0.05)
    pool = WorkerPool(spec, (batch(i) for i in range(10_000)), 3)
    pids: set[int] = set()
    try:
        while len(pids) < 3:
            rows = pool.get(timeout=60)
            assert rows is not None
            pids |= {row.engine_input[1] for row in rows if isinstance(row, MappedRow)}
    finally:
        pool.close()
    assert all(has_ended(pid) for pid in pids)


def test_a_copy_that_hangs_is_killed_when_the_pool_closes() -> None:
    spec: Any = LightSpec(seconds=1000)
    started: list[WorkerProcess] = []

    def start(spec: Any, count: int) -> list[WorkerProcess]:
        started.extend(start_workers(spec, count))
        return started

    pool = WorkerPool(spec, (batch(i) for i in range(100)), 3, start)
    deadline = time.monotonic() + 60
    while not all(worker.loaded and worker.batches for worker in started):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert started[0].process is not None
    pids = [started[0].process.pid, *(child.pid for child in psutil.Process(started[0].process.pid).children())]
    pool.close()
    assert len(pids) == 3 and all(has_ended(pid) for pid in pids)


def test_a_worker_whose_storage_fails_in_a_way_that_may_pass_ends_the_run_so() -> None:
    spec: Any = LightSpec(load_error=OSError(errno.ESTALE, os.strerror(errno.ESTALE), "tokenizer.json"))
    pool = WorkerPool(spec, iter([batch(0)]), 2)
    try:
        with pytest.raises(MayPassError, match=r"Stale file handle.*run the same command again"):
            pool.get(timeout=60)
    finally:
        pool.close()


def test_a_job_that_a_worker_cannot_load_ends_with_the_jobs_error() -> None:
    spec: Any = LightSpec(load_error=JobError("prompt.template has no <image>"))
    pool = WorkerPool(spec, iter([batch(0)]), 2)
    try:
        with pytest.raises(JobError, match=r"^prompt.template has no <image>$"):
            pool.get(timeout=60)
    finally:
        pool.close()


def arena_bytes(pid: int) -> int:
    """Bytes of memory that a worker's arena takes."""
    links = (descriptor for descriptor in Path(f"/proc/{pid}/fd").iterdir() if descriptor.is_symlink())
    arena, *_ = (link for link in links if "memfd:run-batch-arena" in str(link.readlink()))
    return arena.stat().st_blocks * 512


def test_a_worker_with_nothing_to_do_gives_the_memory_of_its_rows_to_the_kernel() -> None:
    spec: Any = LightSpec(tensor_bytes=200_000)
    (worker,) = start_workers(spec, 1)
    try:
        assert isinstance(receive(worker), WorkerReady) and worker.process is not None
        shared_memory.send(worker.connection, batch(0))
        rows = receive(worker)
        taken = arena_bytes(worker.process.pid)
        assert taken > BATCH_ROWS * 200_000
        time.sleep(2 * worker_main._LOOK_SECONDS * worker_main._LOOKS)
        assert arena_bytes(worker.process.pid) >= taken and not any(row.engine_input[2].any() for row in rows)
        del rows
        deadline = time.monotonic() + 20
        while arena_bytes(worker.process.pid) > 100_000 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert arena_bytes(worker.process.pid) <= 100_000
    finally:
        worker.end()
