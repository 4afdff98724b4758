"""The model of a fast tokenizer, without its control tokens: no text is encoded as one of them.

The control tokens of many tokenizers are in the vocabulary of their model, too. Looked for in the text no more, they
would still be found by it: Unigram takes `</s>` as one piece, WordPiece `[MASK]` as one word.
"""

import json
import re
import secrets
from collections.abc import Collection
from typing import Any

from tokenizers import Tokenizer
from tokenizers.models import Model, Unigram

_UNIGRAM = re.compile(rb'\{"type":"Unigram","unk_id":(\d+)')


def unknown_id(model: Model) -> int | None:
    """The token that stands for characters which the model does not know."""
    if isinstance(model, Unigram):
        found = _UNIGRAM.match(model.__getstate__())
        return int(found[1]) if found else None
    unknown = getattr(model, "unk_token", None)  # which all kinds of models but Unigram have
    return model.token_to_id(unknown) if unknown else None


def without_tokens(model: Model, token_ids: Collection[int]) -> Model:
    """A model that gives the same tokens as `model`, but none of `token_ids`, except for what is unknown to it."""
    description = json.loads(Tokenizer(model).to_str())["model"]
    if description["type"] == "Unigram":
        _rename_pieces(description, token_ids)
    else:
        _rename_words(description, token_ids)
    return Tokenizer.from_str(json.dumps({"version": "1.0", "added_tokens": [], "model": description})).model


def _rename_pieces(description: dict[str, Any], token_ids: Collection[int]) -> None:
    pieces = description["vocab"]
    for token_id in token_ids:
        if token_id < len(pieces):
            pieces[token_id][0] = _name_in_no_text()


def _rename_words(description: dict[str, Any], token_ids: Collection[int]) -> None:
    vocabulary = description["vocab"]
    renamed = {word: _name_in_no_text() for word, token_id in vocabulary.items() if token_id in token_ids}
    description["vocab"] = {renamed.get(word, word): token_id for word, token_id in vocabulary.items()}
    description["unk_token"] = renamed.get(description["unk_token"], description["unk_token"])
    if description["type"] == "BPE":
        prefix = len(description["continuing_subword_prefix"] or "")
        pairs = (merge if isinstance(merge, list) else merge.split(" ") for merge in description["merges"])
        description["merges"] = [
            [first, second]
            for first, second in pairs
            if renamed.keys().isdisjoint((first, second, first + second[prefix:]))
        ]


def _name_in_no_text() -> str:
    """A name that no text holds, since nobody can guess it."""
    return secrets.token_hex(16)
