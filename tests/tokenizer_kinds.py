"""Tokenizers of the kinds that models come with, small, and with any added tokens."""

import json
from collections.abc import Sequence
from functools import lru_cache

from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

KINDS = [
    "bytes",
    "bytes with NFC",
    "llama",
    "metaspace",
    "unigram",
    "wordpiece",
    "whole words",
    "characters",
]
_CORPUS = [
    "is it an image of the same image, or do you think that is even?",
    "Hello  world, what a long day! it is (<one>) of the best tools",
    "one two  three; a tool (or a photo) is what I want",
] * 3
_UNKNOWN = "<unk>"


def make_tokenizer(kind: str, added: Sequence[AddedToken], in_vocabulary: bool = False) -> PreTrainedTokenizerFast:
    """A tokenizer that was trained without any of the added tokens.

    Args:
        in_vocabulary: the added tokens are in the vocabulary of its model, too, as those of Llama, T5 and BERT are.
    """
    description = json.loads(_trained(kind))
    if in_vocabulary:
        vocabulary = description["model"]["vocab"]
        for token in added:
            if isinstance(vocabulary, list):
                vocabulary.append([token.content, 0.0])
            else:
                vocabulary[token.content] = len(vocabulary)
    tokenizer = Tokenizer.from_str(json.dumps(description))
    tokenizer.add_tokens(list(added))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token=_UNKNOWN, clean_up_tokenization_spaces=False)


@lru_cache
def _trained(kind: str) -> str:
    tokenizer = Tokenizer(_models[kind]())
    tokenizer.normalizer = _normalizers.get(kind)
    tokenizer.pre_tokenizer = _pre_tokenizers.get(kind)
    trainer = _trainer(kind)
    if trainer is not None:
        tokenizer.train_from_iterator(_CORPUS, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{_UNKNOWN} $A {_UNKNOWN}", special_tokens=[(_UNKNOWN, tokenizer.token_to_id(_UNKNOWN))]
    )
    return tokenizer.to_str()


def _character_vocabulary() -> dict[str, int]:
    return {character: i for i, character in enumerate([_UNKNOWN, *map(chr, range(32, 127)), "\n"])}


_models = {
    "bytes": lambda: models.BPE(unk_token=None),
    "bytes with NFC": lambda: models.BPE(unk_token=None, ignore_merges=True),
    "llama": lambda: models.BPE(unk_token=_UNKNOWN, fuse_unk=True),
    "metaspace": lambda: models.BPE(unk_token=_UNKNOWN),
    "unigram": lambda: models.Unigram(),
    "wordpiece": lambda: models.WordPiece(unk_token=_UNKNOWN),
    "whole words": lambda: models.WordPiece(unk_token=_UNKNOWN),
    "characters": lambda: models.BPE(vocab=_character_vocabulary(), merges=[], unk_token=_UNKNOWN),
}
_normalizers = {
    "bytes with NFC": normalizers.NFC(),
    "llama": normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]),
    "unigram": normalizers.NFKC(),
    "wordpiece": normalizers.BertNormalizer(),
    "whole words": normalizers.Sequence([normalizers.Strip(), normalizers.NFKC(), normalizers.Lowercase()]),
}
_pre_tokenizers = {
    "bytes": pre_tokenizers.ByteLevel(add_prefix_space=False),
    "bytes with NFC": pre_tokenizers.ByteLevel(add_prefix_space=True),
    "metaspace": pre_tokenizers.Metaspace(prepend_scheme="first"),
    "unigram": pre_tokenizers.Metaspace(prepend_scheme="always"),
    "wordpiece": pre_tokenizers.BertPreTokenizer(),
    "whole words": pre_tokenizers.WhitespaceSplit(),
}


def _trainer(kind: str) -> object:
    ascii_letters = [chr(code) for code in range(33, 127)]
    if kind == "characters":
        return None
    if kind == "unigram":
        return trainers.UnigramTrainer(
            vocab_size=200, special_tokens=[_UNKNOWN], unk_token=_UNKNOWN, initial_alphabet=ascii_letters
        )
    if kind in ("wordpiece", "whole words"):
        return trainers.WordPieceTrainer(vocab_size=300, special_tokens=[_UNKNOWN], initial_alphabet=ascii_letters)
    alphabet = pre_tokenizers.ByteLevel.alphabet() if kind.startswith("bytes") else [*ascii_letters, "▁", "\n"]
    return trainers.BpeTrainer(vocab_size=450, special_tokens=[_UNKNOWN], initial_alphabet=alphabet)
