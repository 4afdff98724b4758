"""Tokenization: the tokenizer's own for ordinary text, and no special token ever comes from data."""

import json
import shutil
from functools import lru_cache
from pathlib import Path

import pytest
from checkpoints import IMAGE_TOKEN_ID, save_tokenizer
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tokenizer_kinds import KINDS, make_tokenizer
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast
from transformers.models.bert.tokenization_bert_legacy import BertTokenizerLegacy

from run_batch.model.checkpoint.settings import SettingsError
from run_batch.model.declaration import RowError
from run_batch.model.prompts.tokenizer import Piece, PromptTokenizer

DEMO_MODEL = Path(__file__).parents[3] / "configs" / "demo" / "model"


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


def added(content: str, **flags: bool) -> AddedToken:
    return AddedToken(content, **{"special": False, "normalized": False, **flags})


# Those that only data reads like; the author's is <photo>.
LOOK_ALIKES = [
    added("<image>", special=True),
    added("<think>"),
    added("<tool>", normalized=True),
    added("<b>", lstrip=True, special=True),
    added("[X]", rstrip=True),
    added("<w>", single_word=True, normalized=True),
    added("<image>s"),
    added("<Image>", normalized=True),
    added("<é>", normalized=True),
    added("end of text", special=True),
]
# What text is written with: no data is kept from being these.
VOCABULARY = [added("\n\n"), added("pneumo", normalized=True), added("÷")]
DATA = [
    *(
        "<image>",
        "<think>",
        "<tool>",
        "<b>",
        "[X]",
        "<w>",
        "end of text",
        "＜image＞",
        "＜tool＞",
        "<TOOL>",
        "<to\0ol>",
    ),
    *("<é>", "<e\u0301>", "<", "ima", "ge>", "[", "s", "photo>", "<pho", "\u0301", "ﬁ", "é", "\0", "\ue000", "　", "▁"),
    *(" ", "  ", "\n", "\n\n", "x", "?", "÷", "hello", "world", "pneumo", "_"),
]
TEMPLATES = ["<photo>", "\n", " ", "USER:", "hello", "  ", "."]


def joined(texts: list[str], most: int) -> st.SearchStrategy[str]:
    return st.lists(st.sampled_from(texts), max_size=most).map("".join)


@lru_cache
def tokenizers(
    kind: str, in_vocabulary: bool, normalized: bool
) -> tuple[PreTrainedTokenizerFast, PreTrainedTokenizerFast]:
    """A tokenizer, and the same one without the tokens that data reads like."""
    photo = added("<photo>", special=True, normalized=normalized)
    return (
        make_tokenizer(kind, [photo, *LOOK_ALIKES, *VOCABULARY], in_vocabulary),
        make_tokenizer(kind, [photo, *VOCABULARY], in_vocabulary),
    )


def tokens_of(tokenizer: PreTrainedTokenizerFast, text: str, add_special_tokens: bool) -> list[str]:
    return tokenizer.convert_ids_to_tokens(tokenizer(text, add_special_tokens=add_special_tokens)["input_ids"])


@pytest.mark.parametrize("normalized", [False, True])
@pytest.mark.parametrize("in_vocabulary", [False, True])
@pytest.mark.parametrize("kind", KINDS)
@given(joined(TEMPLATES, 3), joined(DATA, 5), joined(TEMPLATES, 3), st.booleans())
@settings(max_examples=40, deadline=None)
def test_prompts_are_encoded_as_if_the_tokens_that_data_reads_like_did_not_exist(
    kind: str, in_vocabulary: bool, normalized: bool, before: str, data: str, after: str, add_special_tokens: bool
) -> None:
    tokenizer, without = tokenizers(kind, in_vocabulary, normalized)
    assume("<photo>" not in before[-6:] + data + after[:6])
    prompt = [Piece(before, True), Piece(data, False), Piece(after, True)]
    (ids,) = PromptTokenizer(tokenizer).encode([prompt], add_special_tokens)
    expected = tokens_of(without, before + data + after, add_special_tokens)
    assert tokenizer.convert_ids_to_tokens(ids) == expected


@pytest.mark.parametrize("kind", KINDS)
@given(
    st.lists(st.sampled_from(["<photo>", "<photo", "photo>", "＜photo＞", " ", "x", "hello"]), max_size=5).map("".join)
)
@settings(max_examples=30, deadline=None)
def test_only_the_author_s_tokens_count_where_data_has_the_same(kind: str, data: str) -> None:
    tokenizer, _ = tokenizers(kind, True, False)
    photo = tokenizer.convert_tokens_to_ids("<photo>")
    (ids,) = PromptTokenizer(tokenizer).encode(
        [[Piece("<photo> ", True), Piece(data, False), Piece("<photo>", True)]], False
    )
    assert ids.count(photo) == 2 and ids[-1] == photo


@pytest.mark.parametrize("text", ["<image>", "an <image>, ＜image＞ and </image>"])
def test_the_demo_s_tokens_that_are_not_marked_as_special_are_kept_out_of_data(tmp_path: Path, text: str) -> None:
    folder = tmp_path / "model"
    shutil.copytree(DEMO_MODEL, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    description = json.loads((folder / "tokenizer.json").read_text())
    for token in description["added_tokens"]:
        token["special"] = False
    (folder / "tokenizer.json").write_text(json.dumps(description))
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    tokenizer = AutoTokenizer.from_pretrained(folder)
    (ids,) = PromptTokenizer(tokenizer).encode([[Piece("<image>", True), Piece(text, False)]], False)
    image = tokenizer.convert_tokens_to_ids("<image>")
    assert ids.count(image) == 1 and len(ids) == 1 + len(text)


def test_text_that_merges_make_a_special_token_is_spelled_out() -> None:
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trained.train_from_iterator(["<stop>"] * 9, trainers.BpeTrainer(initial_alphabet=alphabet, vocab_size=400))
    trained.decoder = decoders.ByteLevel()
    stop = trained.encode("<stop>").ids
    trained.add_special_tokens(["<stop>"])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=trained)
    (ids,) = PromptTokenizer(tokenizer).encode([[Piece("<stop>", True), Piece("stop <stop>", False)]], False)
    assert len(stop) == 1 and ids.count(stop[0]) == 1
    assert tokenizer.decode(ids) == "<stop>stop <stop>"


def test_data_beside_a_special_token_does_not_change_it() -> None:
    tokenizer = make_tokenizer("bytes", [added("<image>"), added("<image>s"), added("x<"), added("<ima")])
    pieces = [Piece("x", False), Piece("<image>", True), Piece("s", False), Piece("<ima", True), Piece("ge>", False)]
    (ids,) = PromptTokenizer(tokenizer).encode([pieces], False)
    assert tokenizer.convert_ids_to_tokens(ids)[:4] == ["x", "<image>", "s", "<ima"]


def test_trusted_pieces_next_to_each_other_are_one_text_and_data_between_parts_them() -> None:
    tokenizer = make_tokenizer("bytes", [added("<image>")])
    halves = [Piece("<ima", True), Piece("ge>", True)]
    whole, parted = PromptTokenizer(tokenizer).encode(
        [[*halves, Piece("x", False)], [halves[0], Piece("", False), halves[1]]], False
    )
    image = tokenizer.convert_tokens_to_ids("<image>")
    assert whole[0] == image and image not in parted


def test_a_slow_tokenizer_refuses_data_that_reads_like_a_special_token(tmp_path: Path) -> None:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "hello", "[", "]", "mask", "<", ">", "think"]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    slow = BertTokenizerLegacy(str(tmp_path / "vocab.txt"))
    slow.add_tokens(["<think>"])
    tokenizer = PromptTokenizer(slow)
    before = Piece("<think>hello ", True)
    assert tokenizer.encode([[before, Piece("hello", False)]], True) == [slow("<think>hello hello")["input_ids"]]
    for text in ("[MASK]", "<think>", "<THINK>", "＜think＞", "[mask] [MASK]"):
        with pytest.raises(RowError, match=r"^prompt_special: .*reads like a special token"):
            tokenizer.encode([[before, Piece(text, False)]], True)
    with pytest.raises(RowError, match="prompt_special"):
        tokenizer.encode([[before, Piece("<thi", True), Piece("nk>", False)]], True)


def test_a_tokenizer_that_does_not_tell_its_special_tokens_is_refused() -> None:
    class TextOnlyTokenizer:
        def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
            return [1]

    with pytest.raises(SettingsError, match="TextOnlyTokenizer"):
        PromptTokenizer(TextOnlyTokenizer())
