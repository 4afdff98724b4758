"""What is said of the text that stands for an image, in tokenizers that have a token for it and in others."""

from pathlib import Path

import pytest
from checkpoints import save_tokenizer

from run_batch.model.rendering.placeholder_hint import placeholder_hint


@pytest.mark.parametrize(
    ("placeholder", "said"),
    [
        ("<image>", "; <image> stands for an image"),
        ("[<image>]", "; [<image>] stands for an image"),
        ("#", "; # stands for an image"),
        (None, ""),
    ],
)
def test_a_placeholder_with_a_token_of_its_own_is_named(placeholder: str | None, said: str, tmp_path: Path) -> None:
    assert placeholder_hint(save_tokenizer(tmp_path), placeholder) == said


def test_a_placeholder_of_several_tokens_is_shown_in_its_first_tokens_with_what_to_do(tmp_path: Path) -> None:
    tokenizer = save_tokenizer(tmp_path)
    said = placeholder_hint(tokenizer, "<picture of the row>")
    tokens = "'<', 'p', 'i', 'c', 't', 'u', 'r', 'e', 'Ġ', 'o', 'f', 'Ġ', ..."
    assert said.startswith(f"; <picture of the row> is 20 tokens in this tokenizer ({tokens}), and an image needs one")
    tokenizer.add_special_tokens({"additional_special_tokens": ["<picture of the row>"]})
    assert placeholder_hint(tokenizer, "<picture of the row>") == "; <picture of the row> stands for an image"


def test_a_placeholder_that_is_the_unknown_token_is_none(tmp_path: Path) -> None:
    tokenizer = save_tokenizer(tmp_path)
    assert placeholder_hint(tokenizer, "<unk>").startswith("; <unk> is 1 token in this tokenizer ('<unk>'), and an")
