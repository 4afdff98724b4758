"""Mapped rows cross to the pool in memory that both processes see, and that is used again once nobody uses it."""

import gc
import mmap
import os
import random
import threading
from collections.abc import Iterator
from multiprocessing import get_context
from multiprocessing.connection import Connection, Pipe
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from run_batch.jobs.mapping import row_arena
from run_batch.jobs.mapping.free_ranges import FreeRanges
from run_batch.jobs.mapping.row_arena import BorrowedArena, RowArena
from run_batch.jobs.mapping.shared_memory import receive, send_in_parts

PAGE = mmap.PAGESIZE
LARGE = 1 << 20


class Ends:
    """Both ends of a worker's pipe, in this process."""

    def __init__(self, most_bytes: int = 64 << 20, kept_bytes: int = 0) -> None:
        self.arena = RowArena(most_bytes, kept_bytes)
        self._borrowed = BorrowedArena(self.arena.descriptor, self.arena.nbytes)
        self._ours, self._theirs = Pipe()

    def exchange(self, *values: Any) -> list[Any]:
        assert list(send_in_parts(self._ours, [values], 1 << 40, self.arena))
        return list(receive(self._theirs, self._borrowed).value)

    def mapped(self, nbytes: int, value: int) -> torch.Tensor:
        """A tensor as mappers write them."""
        array = self.arena.allocate(nbytes)
        assert array is not None
        array[:] = value
        return torch.from_numpy(array)

    @property
    def memory(self) -> int:
        """Bytes of memory that the file takes."""
        return os.stat(self.arena.descriptor).st_blocks * 512


@pytest.fixture
def ends() -> Ends:
    return Ends()


def address(tensor: torch.Tensor) -> int:
    return tensor.data_ptr()


def test_what_a_mapper_writes_is_not_copied(ends: Ends) -> None:
    sent = ends.mapped(LARGE, 7)
    (received,) = ends.exchange(sent)
    sent[0] = 9
    assert received[0] == 9 and int(received[1]) == 7


def test_tensors_from_elsewhere_arrive_with_those_of_the_arena(ends: Ends) -> None:
    values = {"pixels": ends.mapped(LARGE, 1), "size": torch.tensor([3, 4]), "none": torch.empty(0), "text": "a"}
    (received,) = ends.exchange(values)
    assert torch.equal(received["pixels"], torch.full((LARGE,), 1, dtype=torch.uint8))
    assert received["size"].tolist() == [3, 4] and received["none"].shape == (0,) and received["text"] == "a"


def test_a_part_of_an_array_keeps_all_of_it(ends: Ends) -> None:
    (received,) = ends.exchange(ends.mapped(4 * PAGE, 5)[PAGE : 2 * PAGE].view(2, -1))
    others = [ends.mapped(4 * PAGE, i) for i in range(8)]
    assert received.shape == (2, PAGE // 2) and (received == 5).all() and len(others) == 8


def test_memory_is_used_again_once_the_other_end_has_dropped_it(ends: Ends) -> None:
    sent = ends.mapped(LARGE, 1)
    place = address(sent)
    (received,) = ends.exchange(sent)
    del sent
    assert address(ends.mapped(LARGE, 2)) != place and (received == 1).all()
    view = received.view(2, -1)[1]
    del received
    assert address(ends.mapped(LARGE, 3)) != place and (view == 1).all()
    del view
    assert address(ends.mapped(LARGE, 4)) == place


def test_memory_is_not_used_again_while_the_worker_has_it(ends: Ends) -> None:
    """As that of an image which is kept in case it comes again, and is sent again."""
    kept = ends.mapped(LARGE, 1)
    for _ in range(3):
        (received,) = ends.exchange(kept)
        del received
        ends.mapped(LARGE, 2)
    first, second = ends.exchange(kept)[0], ends.exchange(kept)[0]
    place = address(kept)
    del kept, first
    assert address(ends.mapped(LARGE, 3)) != place and (second == 1).all()
    del second
    assert address(ends.mapped(LARGE, 3)) == place


def test_a_fork_that_drops_its_copy_of_a_row_frees_nothing(ends: Ends) -> None:
    """vLLM may fork its engine while rows wait."""
    sent = ends.mapped(LARGE, 1)
    place = address(sent)
    (received,) = ends.exchange(sent)
    del sent
    child = os.fork()
    if not child:
        del received
        os._exit(0)
    os.waitpid(child, 0)
    assert address(ends.mapped(LARGE, 2)) != place and (received == 1).all()


def test_rows_of_one_message_share_a_tensor(ends: Ends) -> None:
    image = ends.mapped(LARGE, 1)
    place = address(image)
    rows = ends.exchange((0, image), (1, image))
    del image, rows[0]
    assert address(ends.mapped(LARGE, 2)) != place and (rows[0][1] == 1).all()
    rows.clear()
    assert address(ends.mapped(LARGE, 2)) == place


def test_an_array_that_the_garbage_collector_drops_is_freed(ends: Ends) -> None:
    for i in range(2000):
        cycle: list[Any] = [ends.mapped(PAGE, i % 256)]
        cycle.append(cycle)
    del cycle
    gc.collect()
    ends.mapped(PAGE, 0)
    assert ends.memory <= PAGE + row_arena._TICKETS


def test_free_memory_goes_back_to_the_kernel_but_for_what_is_kept() -> None:
    ends = Ends(kept_bytes=2 * LARGE + 1)
    arrays = [ends.mapped(LARGE, i) for i in range(8)]
    before = ends.memory
    assert before >= 8 * LARGE
    arrays = arrays[::2]
    ends.mapped(PAGE, 0)
    assert before - ends.memory >= 2 * LARGE - PAGE
    assert [int(a[-1]) for a in arrays] == [0, 2, 4, 6]
    arrays.clear()
    ends.mapped(PAGE, 0)
    assert ends.memory <= 2 * LARGE + PAGE + row_arena._TICKETS
    ends.arena.free(keep=False)
    assert ends.memory <= row_arena._TICKETS


def test_what_does_not_fit_crosses_in_a_memory_file_of_its_own() -> None:
    ends = Ends(most_bytes=LARGE)
    kept = ends.mapped(LARGE, 1)
    assert ends.arena.allocate(1) is None
    first, second = ends.exchange(kept, torch.full((LARGE,), 2, dtype=torch.uint8))
    assert (first == 1).all() and (second == 2).all()


def test_more_messages_than_tickets_cross(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_arena, "_TICKETS", PAGE)
    ends = Ends()
    received = [ends.exchange(torch.tensor([i]))[0] for i in range(PAGE + 10)]
    assert [int(tensor) for tensor in received] == list(range(PAGE + 10))
    del received
    (again,) = ends.exchange(ends.mapped(LARGE, 3))
    assert (again == 3).all()


def _drop_late(theirs: Connection, arena: RowArena) -> None:
    """Hold some of what comes, check all of it, and drop it in another order, from two threads.

    By NumPy: torch's threads do not survive a fork.
    """
    borrowed, rng, held = BorrowedArena(arena.descriptor, arena.nbytes), random.Random(1), []
    errors = 0
    for _ in range(400):
        held += receive(theirs, borrowed).value
        rng.shuffle(held)
        dropped, held = held[len(held) // 2 :], held[: len(held) // 2]
        errors += sum(not bool((tensor.numpy() == value).all()) for value, tensor in held)
        threading.Thread(target=dropped.clear).start()
    errors += sum(not bool((tensor.numpy() == value).all()) for value, tensor in held)
    theirs.send(errors)


def test_no_array_changes_while_another_process_holds_it() -> None:
    arena = RowArena(256 << 20, 1 << 20)
    ours, theirs = Pipe()
    other = get_context("fork").Process(target=_drop_late, args=(theirs, arena), daemon=True)
    other.start()
    rng, count = random.Random(2), iter(range(1 << 30))

    def rows() -> Iterator[tuple[int, torch.Tensor]]:
        for _ in range(rng.randint(1, 6)):
            value, nbytes = next(count) % 251, rng.choice([100, PAGE, 70_000, 300_000])
            array = arena.allocate(nbytes) if rng.random() < 0.8 else None
            array = np.empty(nbytes, np.uint8) if array is None else array
            array[:] = value
            yield value, torch.from_numpy(array)

    for _ in range(400):
        assert len(list(send_in_parts(ours, [rows()], 1 << 30, arena))) == 1
    assert ours.poll(60) and ours.recv() == 0
    other.join(10)
    arena.free(keep=False)
    assert os.stat(arena.descriptor).st_blocks * 512 <= row_arena._TICKETS


@given(st.lists(st.tuples(st.integers(1, 5), st.integers(0, 9), st.integers(0, 12)), max_size=60))
def test_free_ranges_know_what_is_free_and_what_has_memory(steps: list[tuple[int, int, int]]) -> None:
    """Against a list of pages."""
    pages = ["free"] * 40
    given_back: list[tuple[int, int]] = []
    ranges = FreeRanges(0, 40, lambda start, nbytes: given_back.append((start, nbytes)))
    taken: list[tuple[int, int]] = []
    for nbytes, choice, most in steps:
        start = ranges.take(nbytes)
        if start is not None:
            assert all(page != "used" for page in pages[start : start + nbytes])
            pages[start : start + nbytes] = ["used"] * nbytes
            taken.append((start, nbytes))
        if taken and choice < 6:
            start, nbytes = taken.pop(choice % len(taken))
            pages[start : start + nbytes] = ["resident"] * nbytes
            ranges.put(start, nbytes)
        ranges.trim(most)
        for start, nbytes in given_back:
            assert pages[start : start + nbytes] == ["resident"] * nbytes
            pages[start : start + nbytes] = ["free"] * nbytes
        given_back.clear()
        assert ranges.resident == pages.count("resident") <= most
