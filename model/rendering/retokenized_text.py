"""Finds text of a row that vLLM's processor has turned into a special token.

The processors of some models decode a prompt and tokenize it again (Phi-3-vision, Molmo, and others where a placeholder
is plain text). What was text of the row, such as `<|end|>`, may then come out as the special token of that name.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

from run_batch.model.declaration import RowError
from run_batch.model.rendering.kept_text import first_change


class SpecialTokenCheck:
    """Looks for special tokens that a processor has made of text.

    Args:
        tokenizer: of transformers. A copy of its special tokens is kept: to ask for them takes as long as a row, of a
            tokenizer that has thousands.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    @cached_property
    def _special(self) -> dict[int, str]:
        added = self._tokenizer.added_tokens_decoder.items()
        return {token_id: token.content for token_id, token in added if token.special}

    def check(self, before: list[int], after: list[int], placeholders: Sequence[Any]) -> None:
        """Refuse a row of whose text a processor has made a special token.

        Args:
            before: the prompt's tokens, where text of the row is no special token.
            after: the tokens that the processor has made of them.
            placeholders: the ranges of `after` that stand for images, each with `offset` and `length`, in their order.

        Raises:
            RowError: `image_processing`.
        """
        name = self._made_of_text(before, after, placeholders)
        if name is not None:
            raise RowError(
                "image_processing", f"the model's processor would take text of the row for the special token {name}"
            )

    def _made_of_text(self, before: list[int], after: list[int], placeholders: Sequence[Any]) -> str | None:
        if first_change(before, after, placeholders) is None:
            return None
        outside, text = _outside(after, placeholders), None
        for token_id in dict.fromkeys(outside):
            name, given = self._special.get(token_id), before.count(token_id)
            if name is None:
                continue
            # What a placeholder is written with may be in its range, which takes its place.
            made = outside.count(token_id)
            replaces = after.count(token_id) > made and given >= len(placeholders)
            if made <= (given - len(placeholders) if replaces else given):
                continue
            text = self._tokenizer.decode(before) if text is None else text
            if text.count(name) > given:
                return name
        return None


def _outside(token_ids: list[int], placeholders: Sequence[Any]) -> list[int]:
    outside, position = [], 0
    for placeholder in placeholders:
        outside += token_ids[position : placeholder.offset]
        position = placeholder.offset + placeholder.length
    return outside + token_ids[position:]
