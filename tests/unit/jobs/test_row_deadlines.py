"""Deadlines of workers: which of them hang, how much time rows have together, and when the rows are not the cause."""

from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pytest

from run_batch.io.inputs.source import RowBatch
from run_batch.jobs.job.errors import JobError, RunError
from run_batch.jobs.job.rows import MappedRow
from run_batch.jobs.mapping import row_deadlines
from run_batch.jobs.mapping.pending_batches import PendingBatches
from run_batch.jobs.mapping.row_clock import Activity, RowClock, SeenClock, Stage, open_page
from run_batch.jobs.mapping.row_deadlines import RowDeadlines
from run_batch.jobs.mapping.row_memory import MemoryShares, RowMemory
from run_batch.jobs.runner.place_failures import PlaceFailures


@dataclass
class FakeWorker:
    """A worker of this process, whose clock the test sets."""

    loaded: bool = True
    clock: SeenClock = field(default_factory=SeenClock)
    own: RowClock = field(default_factory=RowClock)

    def __post_init__(self) -> None:
        if self.loaded:
            import os

            self.clock.page = open_page(os.getpid(), self.own.share())
            self.clock.has_mapped = True


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time by the clock of the deadlines."""
    time = [0.0]
    monkeypatch.setattr(row_deadlines.AwakeClock, "now", lambda clock: time[0])
    return time


def overdue(deadlines: RowDeadlines, worker: FakeWorker, now: list[float], seconds: float) -> str | None:
    """What the worker hangs in once so many seconds have passed."""
    now[0] += 1
    assert deadlines.overdue([worker]) == []
    now[0] += seconds
    found = deadlines.overdue([worker])
    return found[0][1].what if found else None


def pending(*batches: RowBatch) -> PendingBatches:
    return PendingBatches(iter(batches), RowMemory(MemoryShares.of(1 << 30, 64)))


def rows(start: int, count: int) -> RowBatch:
    return RowBatch(start, pa.record_batch({"text": ["text"] * count}))


def test_each_thing_that_a_worker_begins_has_its_own_time_and_waiting_has_none(now: list[float]) -> None:
    worker, deadlines = FakeWorker(), RowDeadlines(10)
    for row in range(5):
        worker.own.begin(row, 1, "filling in its prompt")
        assert overdue(deadlines, worker, now, 9) is None
    worker.own.rest()
    assert overdue(deadlines, worker, now, 1000) is None
    with worker.own.resting():
        assert overdue(deadlines, worker, now, 1000) is None
    worker.own.begin(5, 1, "filling in its prompt")
    with worker.own.reading("image photos/7.jpg"):
        assert overdue(deadlines, worker, now, 11) == "reading image photos/7.jpg"
    assert overdue(deadlines, worker, now, 9) is None
    assert overdue(RowDeadlines(0), worker, now, 1000) is None, "0 is no limit"


def test_the_first_rows_of_a_worker_have_time_to_load_what_they_need(now: list[float]) -> None:
    worker, deadlines = FakeWorker(), RowDeadlines(1)
    worker.clock.has_mapped = False
    worker.own.begin(0, 1, "mapping")
    assert overdue(deadlines, worker, now, 4) is None
    now[0] += 2
    assert deadlines.overdue([worker])


def test_a_worker_that_does_not_load_ends_the_run(now: list[float]) -> None:
    deadlines = RowDeadlines(1, start_seconds=100)
    assert overdue(deadlines, FakeWorker(loaded=False), now, 99) is None
    with pytest.raises(RunError, match=r"within 100 s \(errors.start_seconds\)"):
        overdue(deadlines, FakeWorker(loaded=False), now, 101)


def test_rows_that_only_take_long_together_get_more_time_together(now: list[float]) -> None:
    worker, deadlines, batches = FakeWorker(), RowDeadlines(10), pending()
    times = []
    for start in range(0, 160, 16):
        worker.own.begin(start, 16, "mapping")
        seconds = 1
        while overdue(deadlines, worker, now, seconds) is None and seconds < 1000:
            worker.own.begin(start, 16, "mapping")
            seconds += 1
        times.append(seconds)
        if seconds < 1000:
            deadlines.retry(batches, rows(start, 16), Stage(1, Activity.MAPPING, start, 16, "mapping"))
        for row in range(start, start + 16):
            deadlines.mapped(worker, [MappedRow(row, None, {})])
    assert times[:5] == [11, 21, 41, 81, 161] and set(times[5:]) == {161}, "as long as each of them may take alone"


def hang(deadlines: RowDeadlines, batches: PendingBatches, count: int, activity: Activity, what: str) -> None:
    deadlines.retry(batches, rows(0, count), Stage(1, activity, 0, count, what))
    while (batch := batches.take(0)) is not None:
        deadlines.retry(batches, batch, Stage(1, activity, batch.start, 1, what))


def test_rows_that_hang_fail_once_another_row_has_been_mapped() -> None:
    worker, deadlines = FakeWorker(), RowDeadlines(10)
    hang(deadlines, pending(), 7, Activity.MAPPING, "mapping")
    found = deadlines.mapped(worker, [MappedRow(7, None, {})])
    assert [row.row for row in found] == [7, *range(7)] and found[1:] and deadlines.release() == []
    assert {row.error for row in found[1:]} == {  # type: ignore[union-attr]
        "mapping_timeout: mapping takes longer than 10 s (errors.mapping_seconds)"
    }


@pytest.mark.parametrize(
    ("activity", "mapped_before", "error"),
    [
        (Activity.MAPPING, False, JobError),
        (Activity.MAPPING, True, RunError),
        (Activity.READING, False, RunError),
    ],
)
def test_where_all_rows_hang_the_job_or_the_machine_is_at_fault(
    activity: Activity, mapped_before: bool, error: type[Exception]
) -> None:
    deadlines = RowDeadlines(10)
    if mapped_before:
        deadlines.mapped(FakeWorker(), [MappedRow(100, None, {})])
    with pytest.raises(error, match=r"8 rows in succession hang .* Row 0: mapping_timeout: it takes longer than 10 s"):
        hang(deadlines, pending(), 16, activity, "it")


def test_new_rows_are_mapped_between_those_that_may_hang() -> None:
    batches = pending(rows(100, 16), rows(116, 16))
    batches.retry_overdue(rows(0, 10))
    taken: list[Any] = []
    while (batch := batches.take(0)) is not None:
        taken.append(batch.start)
    assert taken == [0, 1, 2, 3, 100, 4, 5, 6, 7, 116, 8, 9] and batches.are_done()


def test_a_file_that_cannot_be_read_in_time_may_be_the_machines_fault() -> None:
    places = PlaceFailures(min_rows=100, max_fraction=0.5)
    for activity, what, is_held in (
        (Activity.READING, "reading image 7.jpg", True),
        (Activity.MAPPING, "decoding and mapping its images", False),
    ):
        deadlines = RowDeadlines(10)
        hang(deadlines, pending(), 1, activity, what)
        (failure,) = deadlines.release()
        assert places.pass_on(failure) == ([] if is_held else [failure])  # type: ignore[arg-type]
