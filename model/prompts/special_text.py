"""Tells whether a text may take part in a control token, by what it holds, begins and ends with.

Cheap, and on the safe side: it answers for a text alone, whatever stands beside it in a prompt.
"""

import json
import re
import unicodedata
from collections.abc import Collection, Iterator
from typing import Any

from tokenizers.normalizers import Normalizer

from run_batch.model.prompts.added_tokens import SPACES, AddedTokens
from run_batch.model.prompts.token_patterns import longest_of

# Normalizers that change a character by itself, or with those that it is composed of.
_LOCAL = {"NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents", "Strip", "Nmt", "BertNormalizer", "ByteLevel"}
_LOCAL |= {"Precompiled"}


class TokenFragments:
    """Finds tokens, and the beginnings and endings of tokens, in texts. Its time does not grow with their number."""

    def __init__(self, tokens: Collection[str]) -> None:
        self._whole = re.compile(longest_of(tokens))
        self._beginnings = {token[:end] for token in tokens for end in range(1, len(token))}
        self._endings = {token[start:] for token in tokens for start in range(1, len(token))}
        self._longest = max(map(len, tokens), default=0)
        self._all = "\0".join(tokens)

    def count(self, text: str) -> int:
        """How many tokens `text` holds."""
        return sum(1 for _ in self._whole.finditer(text))

    def may_be_in(self, text: str) -> bool:
        """Whether `text` holds a token, ends with the beginning of one, begins with the end of one, or is in one."""
        if self._whole.search(text):
            return True
        lengths = range(1, min(self._longest, len(text) + 1))
        return (
            any(text[-length:] in self._beginnings for length in lengths)
            or any(text[:length] in self._endings for length in lengths)
            or (len(text) < self._longest and text in self._all)
        )


class SpecialText:
    """Tells whether a text may take part in a control token of a fast tokenizer."""

    def __init__(self, added: AddedTokens) -> None:
        self._added = added
        tokens = set(added.control_tokens.values())
        self._written = TokenFragments(tokens)
        self._normalized: TokenFragments | None = None
        if added.may_be_in_normalized_text:
            # Without the marks that a normalizer puts for spaces: whether one is there depends on the text beside.
            forms = {form.strip(SPACES) for token in tokens for form in (token, added.normalize(token))}
            # A composed character may come in two texts.
            forms |= {unicodedata.normalize("NFD", form) for form in forms}
            self._normalized = TokenFragments(forms)
            self._is_local = _is_local(added.backend.normalizer, set().union(*forms))

    def may_be_in(self, text: str) -> bool:
        """Whether a control token could arise from `text`, by itself or with any text beside it."""
        if self._written.may_be_in(text):
            return True
        if self._normalized is None:
            return False
        return not self._is_local or self._normalized.may_be_in(self._added.normalize(text).strip(SPACES))


def _is_local(normalizer: Normalizer, token_characters: Collection[str]) -> bool:
    """Whether a piece of text, normalized alone, gives those of the tokens' characters that it gives inside a text."""
    try:
        description = json.loads(normalizer.__getstate__())
    except Exception:  # of no type in particular: the normalizer is written in Python
        return False
    return all(_step_is_local(step, token_characters) for step in _steps(description))


def _steps(description: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if description["type"] == "Sequence":
        for step in description["normalizers"]:
            yield from _steps(step)
    else:
        yield description


def _step_is_local(step: dict[str, Any], token_characters: Collection[str]) -> bool:
    if step["type"] == "Prepend":
        return not step["prepend"].strip(SPACES)
    if step["type"] == "Replace":
        content = step["content"]
        is_one_character = len(step["pattern"].get("String", "..")) == 1
        return is_one_character or (content != "" and not set(content) & set(token_characters))
    return step["type"] in _LOCAL
