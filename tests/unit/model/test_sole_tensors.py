"""Concatenations give the same values, whether they copy or not."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from run_batch.model.rendering.sole_tensors import LARGE_BYTES, SoleTensors

LARGE = torch.arange(LARGE_BYTES // 4, dtype=torch.float32).reshape(4, -1)


@pytest.mark.parametrize("concatenate", [torch.cat, torch.concat, torch.concatenate])
def test_one_large_tensor_is_not_copied(concatenate: Callable[..., torch.Tensor]) -> None:
    with SoleTensors():
        for joined in (concatenate([LARGE]), concatenate((LARGE,), dim=1)):
            assert joined.data_ptr() == LARGE.data_ptr() and torch.equal(joined, LARGE)
    assert concatenate([LARGE]).data_ptr() != LARGE.data_ptr()


@pytest.mark.parametrize(
    "tensors",
    [[LARGE, LARGE], [LARGE[:1]], [LARGE.T], LARGE, LARGE[None]],
    ids=["two", "small", "turned", "rows", "row"],
)
def test_all_else_is_concatenated_as_ever(tensors: Any) -> None:
    expected = torch.cat(list(tensors))
    with SoleTensors():
        joined, written = torch.cat(list(tensors)), torch.cat(list(tensors), out=torch.empty_like(expected))
        whole = torch.stack([LARGE])
    assert torch.equal(joined, expected) and torch.equal(written, expected) and whole.shape == (1, *LARGE.shape)
    assert joined.is_contiguous() and joined.shape == expected.shape
