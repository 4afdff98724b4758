"""`may_hold_special`: true for every text from which a special token could arise, and false for ordinary text."""

from functools import lru_cache
from pathlib import Path

import pytest
from checkpoints import save_tokenizer
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizer_kinds import KINDS, make_tokenizer
from tokenizers import AddedToken, Regex, normalizers
from transformers import PreTrainedTokenizerFast

from run_batch.model.prompts.tokenizer import Piece, PromptTokenizer

TOKENS = [
    AddedToken("<image>", special=True, normalized=False),
    AddedToken("<think>", special=False, normalized=True),
    AddedToken("[a b]", special=False, normalized=True, lstrip=True),
    AddedToken("<é>", special=False, normalized=True),
    AddedToken("<w>", special=False, single_word=True, normalized=False),
    AddedToken("\n\n", special=False, normalized=False),
]
FRAGMENTS = [
    *("<image>", "<think>", "[a b]", "<é>", "<w>", "＜image＞", "＜think＞", "<THINK>", "<", ">", "<ima", "mage>", "m"),
    *("＜", "th", "think", "ink＞", "[", "[a", " ", "  ", "b]", "b", "e", "é", "\u0301", "w", "\0", "\n", "\n\n", "x"),
]


def fragments(most: int) -> st.SearchStrategy[str]:
    return st.lists(st.sampled_from(FRAGMENTS), max_size=most).map("".join)


@lru_cache
def tokenizer_of(kind: str) -> PreTrainedTokenizerFast:
    return make_tokenizer(kind, TOKENS, in_vocabulary=True)


@pytest.mark.parametrize("kind", KINDS)
@given(fragments(2), fragments(4), fragments(2))
@example("<th", "", "ink>")
@example("<i", "mag", "e>")
@example("<e", "\u0301>", "")
@settings(max_examples=80, deadline=None)
def test_no_text_is_missed_from_which_a_special_token_arises(kind: str, before: str, data: str, after: str) -> None:
    tokenizer = PromptTokenizer(tokenizer_of(kind))
    prompts = [[Piece(before, True), Piece(data, trusted), Piece(after, True)] for trusted in (True, False)]
    as_trusted, as_data = tokenizer.encode(prompts, False)
    assert as_trusted == as_data or tokenizer.may_hold_special(data)


@pytest.mark.parametrize("text", ["<image>", "an <image> of", "of <ima", "<", "ge> of", ">", "mag", "m", ""])
def test_special_tokens_and_their_parts_are_found(tmp_path: Path, text: str) -> None:
    assert PromptTokenizer(save_tokenizer(tmp_path)).may_hold_special(text)


@pytest.mark.parametrize("text", ["how many?", "a > b", "x<y, y>z", "an image", "1 < 2\n", "＜image＞", "é" * 10_000])
def test_ordinary_text_holds_none(tmp_path: Path, text: str) -> None:
    assert not PromptTokenizer(save_tokenizer(tmp_path)).may_hold_special(text)


def test_white_space_and_words_among_the_added_tokens_are_ordinary_text() -> None:
    tokenizer = PromptTokenizer(make_tokenizer("bytes", [AddedToken("\n\n"), AddedToken("pneumo")]))
    assert not tokenizer.may_hold_special("a pneumothorax\n\n")


@pytest.mark.parametrize(
    ("step", "before", "data", "after"),
    [
        (normalizers.Replace("()", "<"), "(", ")think", ">"),
        (normalizers.Replace(Regex("--+"), ""), "<th-", "-ink>", ""),
        (normalizers.Prepend("<"), "", "think>", ""),
    ],
)
def test_no_text_is_missed_where_the_normalizer_joins_it_with_text_beside_it(
    step: normalizers.Normalizer, before: str, data: str, after: str
) -> None:
    fast = make_tokenizer("bytes", [])
    fast.backend_tokenizer.normalizer = step
    fast.add_tokens([AddedToken("think>" if isinstance(step, normalizers.Prepend) else "<think>", normalized=True)])
    tokenizer = PromptTokenizer(fast)
    prompts = [[Piece(before, True), Piece(data, trusted), Piece(after, True)] for trusted in (True, False)]
    as_trusted, as_data = tokenizer.encode(prompts, False)
    assert as_trusted != as_data
    assert tokenizer.may_hold_special(data)
