"""Keeps the special tokens of a slow tokenizer out of data: a row whose data reads like one is refused.

Such a tokenizer is Python code of any kind, often the checkpoint's own, and there is no telling how it reads a text.
"""

import unicodedata
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from run_batch.model.declaration import RowError
from run_batch.model.prompts.added_tokens import is_control
from run_batch.model.prompts.fast_guard import REFUSED
from run_batch.model.prompts.special_text import TokenFragments


class SlowGuard:
    """Checks what a slow tokenizer made of prompts, and refuses those in which data may have become a special token."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        controls = {i: token.content for i, token in tokenizer.added_tokens_decoder.items() if is_control(token)}
        self._telling = controls.keys() - {tokenizer.unk_token_id}
        self._fragments = TokenFragments({_folded(text) for text in controls.values()})
        self._controls_of = lru_cache(maxsize=1024)(self._count_controls)

    def may_hold_special(self, text: str) -> bool:
        """See PromptTokenizer."""
        return self._fragments.may_be_in(_folded(text))

    def guarded(
        self, text: str, trusted: Sequence[tuple[int, int]], ids: list[int], add_special_tokens: bool
    ) -> list[int]:
        """The token ids of a prompt, unchanged.

        Args:
            trusted: the spans (start, end) of `text` that may form special tokens.
            ids: what the tokenizer made of `text`.
            add_special_tokens: with BOS and the like, as `ids` are.

        Raises:
            RowError: `prompt_special`, see PromptTokenizer.
        """
        pieces = [text[start:end] for start, end in trusted]
        expected = Counter(self._controls_of("", add_special_tokens))
        for piece in pieces:
            expected.update(self._controls_of(piece, False))
        looks = self._fragments.count(_folded(text)) != sum(self._fragments.count(_folded(piece)) for piece in pieces)
        if looks or Counter(i for i in ids if i in self._telling) != expected:
            raise RowError("prompt_special", REFUSED)
        return ids

    def _count_controls(self, text: str, add_special_tokens: bool) -> Counter[int]:
        ids = self._tokenizer(text, add_special_tokens=add_special_tokens)["input_ids"]
        return Counter(token_id for token_id in ids if token_id in self._telling)


def _folded(text: str) -> str:
    """`text` without the differences that tokenizers may overlook."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
