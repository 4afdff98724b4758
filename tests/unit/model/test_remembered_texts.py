"""A tokenizer that remembers gives what the tokenizer gives, as something that its user may change."""

import copy
from typing import Any

import pytest
import torch
from built_in_families import FAMILIES

from run_batch.model.rendering.remembered_texts import remembering


@pytest.fixture
def tokenizer() -> Any:
    return FAMILIES["internvl"]()[1].tokenizer


def values(encoded: Any) -> dict[str, Any]:
    return {
        name: value.tolist() if isinstance(value, torch.Tensor) else copy.deepcopy(value)
        for name, value in encoded.items()
    }


@pytest.mark.parametrize(
    "settings",
    [{}, {"return_tensors": "pt"}, {"add_special_tokens": False, "truncation": False}, {"padding": True}],
)
@pytest.mark.parametrize("text", ["<img>" + "<IMG_CONTEXT>" * 30 + "</img>", ["one", "two <img>"], ""])
def test_it_gives_the_same_each_time_whatever_is_done_to_it(tokenizer: Any, text: Any, settings: Any) -> None:
    if settings.get("return_tensors") and isinstance(text, list):
        settings = {**settings, "padding": True}
    remembers, expected = remembering(tokenizer, 1 << 20), values(tokenizer(text, **settings))
    for _ in range(3):
        found = remembers(text, **settings)
        assert values(found) == expected and type(found) is type(tokenizer(text, **settings))
        for value in found.values():
            value[:] = torch.zeros_like(value) if isinstance(value, torch.Tensor) else []


def test_a_text_is_tokenized_once_for_each_of_its_settings(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    calls, original = [], type(tokenizer).__call__

    def counting(self: Any, *texts: Any, **settings: Any) -> Any:
        calls.append((texts, settings))
        return original(self, *texts, **settings)

    monkeypatch.setattr(type(tokenizer), "__call__", counting)
    remembers = remembering(tokenizer, 1 << 20)
    for _ in range(3):
        for text in ("a", "b"):
            for settings in ({}, {"return_tensors": "pt"}):
                remembers(text, **settings)
    assert len(calls) == 4
    assert remembers.decode(remembers("a b")["input_ids"]) == "a b"


def test_it_keeps_no_more_than_it_may(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    calls, original = [], type(tokenizer).__call__
    monkeypatch.setattr(type(tokenizer), "__call__", lambda *a, **k: calls.append(a) or original(*a, **k))
    remembers = remembering(tokenizer, 10_000)
    for _ in range(2):
        remembers("x" * 1000)  # takes more
        remembers("short")
    assert len(calls) == 3
