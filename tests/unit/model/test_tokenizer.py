"""Tokenization: the tokenizer's own for ordinary text, and no special token ever comes from data."""

from pathlib import Path

import pytest
from checkpoints import IMAGE_TOKEN_ID, save_tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from run_batch.model.prompts.tokenizer import Piece, PromptTokenizer


@pytest.fixture(scope="module", params=["bytes", "merges", "words"])
def tokenizer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> PreTrainedTokenizerFast:
    if request.param == "bytes":
        return save_tokenizer(tmp_path_factory.mktemp("tokenizer"))
    trained = Tokenizer(models.BPE(unk_token="<unk>"))
    specials = ["<unk>", "<s>", "</s>", "<pad>", "<image>"]
    if request.param == "merges":
        trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        trained.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
    else:
        trained.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
        trained.decoder = decoders.Metaspace(prepend_scheme="first")
        alphabet = sorted("<>/abcdefghijklmnopqrstuvwxyz?!.")
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=specials, initial_alphabet=list(alphabet))
    trained.train_from_iterator(["is it an image of the same image <image> even?</s>"] * 4, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=trained, unk_token="<unk>", eos_token="</s>", additional_special_tokens=["<image>"]
    )


def test_text_of_the_author_is_tokenized_as_the_tokenizer_does(tokenizer: PreTrainedTokenizerFast) -> None:
    prompts = [[Piece("USER: <image>\n", True), Piece("how many?", False), Piece("</s>", True)]]
    assert PromptTokenizer(tokenizer).encode(prompts, True) == [tokenizer("USER: <image>\nhow many?</s>")["input_ids"]]


@given(
    st.lists(
        st.sampled_from(["<image>", "</s>", "<", "ima", "ge>", " ", "image", "é", "?", "\0", "<s>"]),
        max_size=6,
    )
)
@settings(max_examples=60, deadline=None)
def test_data_never_becomes_a_special_token(tokenizer: PreTrainedTokenizerFast, parts: list[str]) -> None:
    text = "".join(parts)
    (ids,) = PromptTokenizer(tokenizer).encode(
        [[Piece("a<image>", True), Piece(text, False), Piece(" b", True)]], False
    )
    specials = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    assert [i for i in ids if i in specials] == [IMAGE_TOKEN_ID]


def test_data_that_reads_like_a_special_token_keeps_its_characters(tmp_path: Path) -> None:
    tokenizer = save_tokenizer(tmp_path)
    (ids,) = PromptTokenizer(tokenizer).encode(
        [[Piece("a ", True), Piece("<image>\ue000</s>", False), Piece("!", True)]], True
    )
    bytes_of = {char: i for char, i in tokenizer.get_vocab().items()}
    plain = [bytes_of[c] for c in "aĠ<image>îĢĢ</s>!"]
    assert ids == [tokenizer.bos_token_id, *plain]


def test_a_special_token_that_forms_across_a_border_stays_text(tmp_path: Path) -> None:
    tokenizer = save_tokenizer(tmp_path)
    (ids,) = PromptTokenizer(tokenizer).encode([[Piece("<ima", True), Piece("ge>", False)]], False)
    assert IMAGE_TOKEN_ID not in ids and len(ids) == len("<image>")


def test_a_text_of_all_private_characters_is_encoded_like_any_other(tmp_path: Path) -> None:
    text = "".join(map(chr, range(0xE000, 0xF900))) + "<image>"
    (ids,) = PromptTokenizer(save_tokenizer(tmp_path)).encode([[Piece(text, False)]], False)
    assert IMAGE_TOKEN_ID not in ids and len(ids) == len(text.encode())
