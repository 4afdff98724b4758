"""A prompt's tokens as text, by tokenizers that mark spaces in different ways."""

from types import SimpleNamespace
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from run_batch.jobs.trial.prompt_text import prompt_text, special_names_in_text

SPECIAL = ["<unk>", "<s>", "</s>", "<image>", "<break>"]


def byte_level() -> PreTrainedTokenizerFast:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(
        models.BPE({token: i for i, token in enumerate([*SPECIAL, *alphabet])}, [], unk_token="<unk>")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, additional_special_tokens=SPECIAL)


def sentence_piece() -> PreTrainedTokenizerFast:
    """As of Llama: a text begins with a mark, which decoding takes away."""
    vocab = [*SPECIAL, "▁", *"abcdehistw?\n", *(f"<0x{byte:02X}>" for byte in range(256))]
    tokenizer = Tokenizer(
        models.BPE({token: i for i, token in enumerate(vocab)}, [], unk_token="<unk>", byte_fallback=True)
    )
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, additional_special_tokens=SPECIAL)


def expanded(tokenizer: Any, text: str, run: list[str]) -> dict[str, Any]:
    """The engine input of a text in which each `<image>` becomes a run of tokens."""
    image, ids, places = tokenizer.convert_tokens_to_ids("<image>"), list[int](), []
    for token_id in tokenizer(text, add_special_tokens=False)["input_ids"]:
        if token_id == image:
            places.append(SimpleNamespace(offset=len(ids), length=len(run)))
            ids += tokenizer.convert_tokens_to_ids(run)
        else:
            ids.append(token_id)
    return {"prompt_token_ids": ids, "mm_placeholders": {"image": places}}


@pytest.mark.parametrize(
    ("text", "by_bytes", "by_pieces"),
    [
        # The second tokenizer begins a new text after each special token: these spaces are in the prompt.
        ("<s>what<image> is this?", "<s>what[<image> x 3] is this?", "<s> what[<image> x 3]  is this?"),
        ("<image>\nis", "[<image> x 3]\nis", "[<image> x 3] \nis"),
        ("a <image><image>", "a [<image> x 3][<image> x 3]", "a [<image> x 3][<image> x 3]"),
        ("<s>é 日 is</s>", "<s>é 日 is</s>", "<s> é 日 is</s>"),
    ],
)
def test_spaces_and_special_tokens_are_those_of_the_prompt(text: str, by_bytes: str, by_pieces: str) -> None:
    for tokenizer, shown in ((byte_level(), by_bytes), (sentence_piece(), by_pieces)):
        assert prompt_text(tokenizer, expanded(tokenizer, text, ["<image>"] * 3)) == shown


def test_a_space_after_an_image_is_not_lost() -> None:
    tokenizer = sentence_piece()
    ids = tokenizer.convert_tokens_to_ids(["<image>", "<image>", "▁", "i", "s"])
    place = SimpleNamespace(offset=0, length=2)
    found = prompt_text(tokenizer, {"prompt_token_ids": ids, "mm_placeholders": {"image": [place]}})
    assert found == "[<image> x 2] is"


def test_runs_with_other_tokens_in_them_are_shown_as_they_are() -> None:
    tokenizer = byte_level()
    run = ["<image>", "<image>", "<break>", "<image>", "</s>"]
    assert prompt_text(tokenizer, expanded(tokenizer, "<image>?", run)) == "[<image> x 2]<break><image></s>?"


def test_a_text_only_prompt_has_no_placeholders() -> None:
    tokenizer = byte_level()
    token_ids = tokenizer("is it <s>?", add_special_tokens=False)["input_ids"]
    assert prompt_text(tokenizer, {"prompt_token_ids": token_ids}) == "is it <s>?"
    assert special_names_in_text(tokenizer, {"prompt_token_ids": token_ids}) == {}
