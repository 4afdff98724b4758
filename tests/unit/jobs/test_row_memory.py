"""The memory of rows on their way: never more than the budget but for one batch, and the job always goes on."""

import random
from collections import Counter, deque

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from run_batch.io.inputs.source import RowBatch
from run_batch.jobs.job.rows import MappedRow, MappedRows
from run_batch.jobs.mapping.pending_batches import PendingBatches
from run_batch.jobs.mapping.row_memory import MemoryShares, RowMemory

BUDGET = 400_000_000


def batches(count: int, rows: int = 16, row_bytes: int = 10) -> list[RowBatch]:
    records = pa.record_batch({"image": [bytes(row_bytes)] * rows})
    return [RowBatch(rows * index, records) for index in range(count)]


class Workers:
    """Workers of a pool, and the engine: batches at workers, mapped rows that wait, rows in the engine."""

    def __init__(self, sizes: list[int], workers: int) -> None:
        self.memory = RowMemory(MemoryShares.of(BUDGET, workers))
        self.pending = PendingBatches(iter(batches(-(-len(sizes) // 16))), self.memory)
        self.sizes = sizes
        self.out: deque[RowBatch] = deque()
        self.waiting: deque[MappedRows] = deque()
        self.engine: deque[MappedRow] = deque()
        self.seen: list[int] = []
        self.sent = Counter[int]()

    def hand_out(self) -> bool:
        batch = self.pending.take(is_awaited=not self.waiting and not self.engine)
        if batch is not None:
            self.out.append(batch)
        return batch is not None

    def map_a_row(self) -> None:
        """One worker sends a row, and gives back the rest of its batch where that takes too much."""
        batch = self.out.popleft()
        size = self.sizes[batch.start % len(self.sizes)]
        left = self.pending.came_back(batch, 1)
        rows = self.memory.hold([MappedRow(batch.start, None, {})], size, 0)
        self.waiting.append(rows)
        self.sent[batch.stop] += size
        if left and self.sent[batch.stop] >= self.memory.shares.batch:
            del self.sent[batch.stop]
            self.pending.give_back(left[0])
        else:
            self.out.extendleft(left)

    def feed(self) -> None:
        self.engine += [row for row in self.waiting.popleft() if isinstance(row, MappedRow)]

    def finish(self) -> None:
        self.seen.append(self.engine.popleft().row)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 8), st.integers(1_000, 60_000_000), st.integers(0, 99))
def test_rows_never_take_more_than_their_part_of_the_budget_and_one_batch(workers: int, size: int, seed: int) -> None:
    dice, row = random.Random(seed), 2 * size
    state = Workers([size] * 64, workers)
    shares = state.memory.shares
    # Until the first row has come back, its size is not known: each worker maps one, and gives back what is too much.
    unknown = shares.rows // 4 + workers * row
    for _ in range(500):
        steps = [state.hand_out] * 2 + [state.map_a_row] * bool(state.out) + [state.feed] * bool(state.waiting)
        dice.choice(steps + [state.finish] * bool(state.engine))()
        rows = len(state.out) + sum(map(len, state.waiting)) + len(state.engine)
        assert rows * row <= max(shares.rows, unknown) + max(row, 2 * shares.batch)
    while state.waiting or state.engine or state.out or state.hand_out():
        while state.out:
            state.map_a_row()
        while state.waiting:
            state.feed()
        while state.engine:
            state.finish()
    assert sorted(state.seen) == list(range(64)), "no row is lost, repeated or held up"


def test_a_row_counts_until_it_is_dropped_with_all_that_share_its_memory() -> None:
    memory = RowMemory(MemoryShares.of(BUDGET, 2))
    freed: list[int] = []
    memory.on_freed = lambda: freed.append(1)
    rows = memory.hold([MappedRow(0, None, {}), MappedRow(1, None, {})], 10_000_000, 0)
    used = memory.used
    assert used >= 20_000_000, "here, and in the engine's process"
    memory.is_short = True
    del rows[0]
    assert memory.used == used and not freed, "the row beside it still holds the memory"
    rows.clear()
    assert memory.used == 0 and freed == [1]


def test_rows_that_share_an_image_count_once_here_and_each_in_the_engine() -> None:
    memory = RowMemory(MemoryShares.of(BUDGET, 2))
    rows = memory.hold([MappedRow(row, None, {}, nbytes=10_000_000) for row in range(8)], 10_000_000, 0)
    assert memory.used == 90_000_000
    assert len(rows) == 8


def test_a_batch_is_cut_to_the_rows_that_fit() -> None:
    memory = RowMemory(MemoryShares.of(BUDGET, 4))
    (batch,) = batches(1)
    assert memory.rows_to_hand_out(batch, False) == 16, "nothing is known of its rows"
    memory.hold([MappedRow(0, None, {})], 2_000_000, 0)
    assert memory.rows_to_hand_out(batch, False) == 4
    (large,) = batches(1, row_bytes=1_000_000)
    assert memory.rows_to_hand_out(large, False) < 4, "its encoded images are counted, too"


def test_while_the_engine_has_no_row_to_run_one_is_handed_out_whatever_it_takes() -> None:
    memory = RowMemory(MemoryShares.of(BUDGET, 4))
    (batch,) = batches(1)
    rows = memory.hold([MappedRow(0, None, {})], BUDGET, 0)
    assert memory.rows_to_hand_out(batch, is_awaited=False) == 0 and memory.is_short
    assert memory.rows_to_hand_out(batch, is_awaited=True) == 1, "that row may be a suspect that waits for others"
    memory.hand_out(batch.slice(0, 1))
    assert memory.rows_to_hand_out(batch, is_awaited=True) == 0
    del rows


@pytest.mark.parametrize("workers", [1, 2, 14, 64])
def test_the_shares_of_a_budget_are_no_more_than_the_budget(workers: int) -> None:
    for budget in (256_000_000, 5 << 30, 256 << 30):
        shares = MemoryShares.of(budget, workers)
        assert shares.rows + workers * shares.worker <= budget and shares.rows >= budget // 4 * 3
        told = shares.of_worker("turns")
        parts = (told.encoded_bytes, told.download_bytes, told.cache_bytes, told.kept_bytes, told.decode_bytes)
        assert sum(parts) <= shares.worker and told.batch_bytes * 2 * 2 * workers <= shares.rows
        assert budget <= MemoryShares.budget_for(shares.rows, workers) <= budget + 2 * workers
