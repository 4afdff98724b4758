"""Values sent between processes arrive unchanged, their tensors and Arrow batches in shared memory."""

import errno
import os
import threading
from collections.abc import Iterator
from multiprocessing.connection import Pipe
from typing import Any

import pyarrow as pa
import pytest
import torch

from run_batch.jobs.mapping import shared_memory


def exchange(value: object) -> tuple[object, int]:
    ours, theirs = Pipe()
    shared_memory.send(ours, value)
    return shared_memory.receive(theirs)[:2]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.uint8, torch.bool, torch.int64])
def test_tensors_arrive_as_they_were_sent(dtype: torch.dtype) -> None:
    sent = {
        "whole": torch.arange(24).reshape(2, 3, 4).to(dtype),
        "strided": torch.arange(24).reshape(4, 6).to(dtype).T,
        "scalar": torch.tensor(1).to(dtype),
        "empty": torch.empty(0, 3, dtype=dtype),
        "text": ["a", 1],
    }
    received, nbytes = exchange(sent)
    assert isinstance(received, dict)
    assert received.pop("text") == sent.pop("text")
    for name, tensor in sent.items():
        assert isinstance(tensor, torch.Tensor)
        assert received[name].dtype == dtype and torch.equal(received[name], tensor), name
    assert nbytes == (24 + 24 + 1) * dtype.itemsize


def test_values_without_tensors_arrive() -> None:
    assert exchange(["a", None, 3]) == (["a", None, 3], 0)
    assert exchange([]) == ([], 0)


def test_a_slice_of_an_arrow_batch_arrives_alone() -> None:
    images = pa.array([bytes([i]) * 1_000_000 for i in range(16)])
    whole = pa.record_batch({"image": images, "text": [str(i) for i in range(16)]})
    received, nbytes = exchange({"start": 3, "records": whole.slice(3, 2)})
    assert isinstance(received, dict) and received["start"] == 3
    assert received["records"].equals(whole.slice(3, 2))
    assert 2_000_000 <= nbytes < 3_000_000


def test_sending_large_rows_does_not_wait_until_they_are_read() -> None:
    # Each is far more than a pipe holds: else the pool's thread would wait for the slowest of its workers.
    ours, theirs = Pipe()
    values = [pa.record_batch({"image": [bytes(10_000_000)]}), torch.zeros(10_000_000, dtype=torch.uint8)]
    sender = threading.Thread(target=lambda: [shared_memory.send(ours, value) for value in values], daemon=True)
    sender.start()
    sender.join(timeout=20)
    assert not sender.is_alive()
    assert shared_memory.receive(theirs)[0]["image"][0].as_py() == bytes(10_000_000)
    assert len(shared_memory.receive(theirs)[0]) == 10_000_000


def test_no_descriptor_is_left_open() -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        exchange(torch.ones(1000))
    assert len(os.listdir("/proc/self/fd")) <= before + 1


def test_received_values_hold_no_descriptor() -> None:
    before = len(os.listdir("/proc/self/fd"))
    received: list[Any] = [exchange(torch.full((1000,), i))[0] for i in range(50)]
    assert len(os.listdir("/proc/self/fd")) <= before + 1
    assert [int(tensor[-1]) for tensor in received] == list(range(50))


def test_a_value_that_cannot_be_sent_leaves_nothing_in_the_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_descriptor(*arguments: object) -> int:
        raise OSError(errno.EMFILE, "too many open files")

    ours, theirs = Pipe()
    with monkeypatch.context() as patch, pytest.raises(OSError, match="too many"):
        patch.setattr(os, "memfd_create", no_descriptor)
        shared_memory.send(ours, torch.ones(1000))
    shared_memory.send(ours, "next")
    assert shared_memory.receive(theirs)[:2] == ("next", 0)


def test_a_closed_other_end_raises_end_of_file() -> None:
    ours, theirs = Pipe()
    ours.close()
    with pytest.raises(EOFError):
        shared_memory.receive(theirs)


def test_values_are_sent_in_parts_and_a_large_one_has_a_memory_of_its_own() -> None:
    ours, theirs = Pipe()
    values = [(i, torch.full((size,), i, dtype=torch.uint8)) for i, size in enumerate([10, 20, 1000, 5, 0, 90, 50])]
    sent = list(shared_memory.send_in_parts(ours, ([value] for value in values), 100))
    assert sent == [(2, 30), (1, 1000), (3, 95), (1, 50)]
    parts = [shared_memory.receive(theirs) for _ in sent]
    assert [(len(part.value), part.nbytes) for part in parts] == sent
    received = [value for part in parts for value in part.value]
    assert [i for i, _ in received] == list(range(7))
    assert all(torch.equal(tensor, values[i][1]) for i, tensor in received)


def test_what_the_rows_of_a_group_have_in_common_is_sent_once() -> None:
    """As for rows of one image, each of which has a little tensor of its own, too."""
    ours, theirs = Pipe()
    first, second = (torch.full((100_000,), i, dtype=torch.uint8) for i in range(2))
    groups = [[(image, torch.tensor([row])) for row in range(4)] for image in (first, second)]
    sent = list(shared_memory.send_in_parts(ours, iter(groups), 50_000))
    assert sent == [(4, 100_032), (4, 100_032)]
    for image in (first, second):
        rows = shared_memory.receive(theirs).value
        assert all(torch.equal(row[0], image) for row in rows) and len({row[0].data_ptr() for row in rows}) == 1
        assert [int(row[1]) for row in rows] == list(range(4))


def test_a_list_that_is_full_is_sent_before_the_next_group_is_made() -> None:
    ours, theirs = Pipe()

    def groups() -> Iterator[list[torch.Tensor]]:
        for _ in range(3):
            yield [torch.ones(1000)]
            assert theirs.poll(), "it is held while the next rows are mapped"
            shared_memory.receive(theirs)

    assert list(shared_memory.send_in_parts(ours, groups(), 100)) == [(1, 4000)] * 3
