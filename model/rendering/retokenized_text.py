"""Finds text of a row that vLLM's processor has turned into a special token.

The processors of some models decode a prompt and tokenize it again (Phi-3-vision, Molmo, and others where a placeholder
is plain text). What was text of the row, such as `<|end|>`, may then come out as the special token of that name.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from run_batch.model.rendering.kept_text import first_change


def new_special_token(tokenizer: Any, before: list[int], after: list[int], placeholders: Sequence[Any]) -> str | None:
    """A special token that a processor has made of text; None where it has made none.

    Args:
        before: the prompt's tokens, where text of the row is no special token.
        after: the tokens that the processor has made of them.
        placeholders: the ranges of `after` that stand for images, each with `offset` and `length`, in their order.
    """
    if first_change(before, after, placeholders) is None:
        return None
    text, given = tokenizer.decode(before), Counter(before)
    outside = _outside(after, placeholders)
    made, replacing = Counter(outside), Counter(after) - Counter(outside)
    for token_id, token in tokenizer.added_tokens_decoder.items():
        kept = given[token_id]
        reads_like_it = token.special and text.count(token.content) > kept
        # What a placeholder is written with may be in its range, which takes its place.
        if replacing[token_id] and kept >= len(placeholders):
            kept -= len(placeholders)
        if reads_like_it and made[token_id] > kept:
            return token.content
    return None


def _outside(token_ids: list[int], placeholders: Sequence[Any]) -> list[int]:
    outside, position = [], 0
    for placeholder in placeholders:
        outside += token_ids[position : placeholder.offset]
        position = placeholder.offset + placeholder.length
    return outside + token_ids[position:]
