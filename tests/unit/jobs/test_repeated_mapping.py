"""What counts as a difference between two mappings of a row."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from run_batch.jobs.job.rows import MappedRow, RowFailure
from run_batch.jobs.trial.repeated_mapping import differences
from run_batch.model.declaration import MappedItem, PlaceholderRange, TokenizedPrompt
from run_batch.model.rendering.engine_input import engine_input

ITEM = MappedItem("image", {"pixel_values": torch.zeros(3, 2), "scale": torch.tensor(1.0)}, "hash")
PROMPT = TokenizedPrompt([1, 4, 4, 9], (ITEM,), (PlaceholderRange(1, 2),))


def mapped(prompt: TokenizedPrompt, sampling: Any = None) -> MappedRow:
    return MappedRow(5, engine_input(prompt), sampling or {})


def with_tensors(**tensors: torch.Tensor) -> MappedRow:
    return mapped(replace(PROMPT, items=(replace(ITEM, tensors={**ITEM.tensors, **tensors}),)))


OTHERS: list[tuple[MappedRow | RowFailure, str]] = [
    (mapped(replace(PROMPT, prompt_token_ids=[1, 4, 4, 8])), "other token ids (token 3 is 9 the first time, 8 the sec"),
    (mapped(replace(PROMPT, prompt_token_ids=[1, 4, 4])), "4 prompt tokens the first time, 3 the second"),
    (with_tensors(pixel_values=torch.ones(3, 2)), "other pixel_values (6 of 6 values)"),
    (with_tensors(pixel_values=-torch.zeros(3, 2)), "other bits of pixel_values"),
    (with_tensors(pixel_values=torch.zeros(2, 3)), "pixel_values of (3, 2) float32 the first time, of (2, 3) float32"),
    (with_tensors(pixel_values=torch.zeros(3, 2).half()), "pixel_values of (3, 2) float32 the first time, of (3, 2) f"),
    (with_tensors(scale=torch.tensor(2.0)), "other scale (1 of 1 values)"),
    (with_tensors(more=torch.zeros(1)), "pixel_values, scale, "),
    (mapped(replace(PROMPT, items=(replace(ITEM, content_hash="other"),))), "other content hashes of its images"),
    (mapped(replace(PROMPT, placeholders=(PlaceholderRange(2, 2),))), "other placeholders"),
    (mapped(replace(PROMPT, placeholders=(PlaceholderRange(1, 2, (True, False)),))), "other "),
    (mapped(PROMPT, {"seed": 4}), "other sampling settings"),
    (RowFailure(5, "image_decode", "damaged"), "no error the first time, the error image_decode: damaged the second"),
]


@pytest.mark.parametrize(("other", "says"), OTHERS)
def test_whatever_differs_is_said(other: MappedRow | RowFailure, says: str) -> None:
    found = differences([mapped(PROMPT)], [other])
    assert list(found) == [5] and found[5].startswith(says)


def test_the_same_is_the_same_also_where_it_is_not_a_number() -> None:
    odd = torch.tensor([float("nan"), float("inf"), -0.0])
    assert not differences([with_tensors(pixel_values=odd)], [with_tensors(pixel_values=odd.clone())])
    masked = replace(PROMPT, placeholders=(PlaceholderRange(1, 2, (True, False)),))
    assert not differences([mapped(masked)], [mapped(masked)])
    text = TokenizedPrompt([1, 2])
    assert not differences([mapped(text)], [mapped(text)])


@pytest.mark.parametrize(("kinds", "is_alike"), [(("a", "a"), True), (("a", "b"), False), (("a", "url_failed"), True)])
def test_failures_are_alike_by_kind_and_a_host_may_fail(kinds: tuple[str, str], is_alike: bool) -> None:
    first, second = (RowFailure(5, kind, f"message {index}") for index, kind in enumerate(kinds))
    assert (not differences([first], [second])) == is_alike
    assert not differences([mapped(PROMPT)], [RowFailure(5, "url_failed", "timeout")])
