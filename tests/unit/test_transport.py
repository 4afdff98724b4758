"""Mapped rows between processes: the same values, tensors without a copy through the pipe."""

import os
from multiprocessing.connection import Pipe

import pytest
import torch

from run_batch.jobs import transport


def exchange(value: object) -> tuple[object, int]:
    ours, theirs = Pipe()
    transport.send(ours, value)
    return transport.receive(theirs)


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


def test_no_descriptor_is_left_open() -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        exchange(torch.ones(1000))
    assert len(os.listdir("/proc/self/fd")) <= before + 1


def test_the_other_end_gone_is_told() -> None:
    ours, theirs = Pipe()
    ours.close()
    with pytest.raises(EOFError):
        transport.receive(theirs)
