"""Tokenizes prompts in bulk, so that text from the data never becomes a special token.

A prompt is a list of pieces. Each is either written by the job's author (the template, where `<image>` or `</s>` is the
special token) or taken from the data (where it is plain text).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

from tokenizers import Tokenizer

from run_batch.model.checkpoint.settings import SettingsError
from run_batch.model.prompts.added_tokens import is_control
from run_batch.model.prompts.fast_guard import FastGuard
from run_batch.model.prompts.slow_guard import SlowGuard


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of prompt text; only `trusted` text may hold special tokens."""

    text: str
    trusted: bool


class _Guard(Protocol):
    """Keeps special tokens out of data: for fast tokenizers as text, for others by refusing the row."""

    def guarded(
        self, text: str, trusted: Sequence[tuple[int, int]], ids: list[int], add_special_tokens: bool
    ) -> list[int]: ...

    def may_hold_special(self, text: str) -> bool: ...


class PromptTokenizer:
    """Tokenizes prompts as the model's own tokenizer does, except that data never becomes a special token.

    Raises:
        SettingsError: the tokenizer does not tell its special tokens, so no text can be kept from being one.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.hf_tokenizer = tokenizer
        self._guard = _guard_for(tokenizer)

    def encode(self, prompts: Sequence[Sequence[Piece]], add_special_tokens: bool) -> list[list[int]]:
        """Token ids of each prompt.

        A special token counts where it lies within trusted pieces; next to each other, these are one. Anywhere else,
        the tokenizer reads its characters as those of any other text.

        Args:
            add_special_tokens: add the tokenizer's own BOS and the like (not after a chat template).

        Raises:
            RowError: `prompt_special`, where data of one of the prompts reads like a special token, and the tokenizer
                cannot read it as text.
        """
        texts = ["".join(piece.text for piece in prompt) for prompt in prompts]
        if not texts:
            return []
        encoded = self.hf_tokenizer(texts, add_special_tokens=add_special_tokens, return_attention_mask=False)
        token_ids: list[list[int]] = encoded["input_ids"]
        for index, prompt in enumerate(prompts):
            if not all(piece.trusted for piece in prompt):
                token_ids[index] = self._guard.guarded(
                    texts[index], _trusted_spans(prompt), token_ids[index], add_special_tokens
                )
        return token_ids

    def may_hold_special(self, text: str) -> bool:
        """Whether a special token could arise where `text` stands in a prompt, if it were trusted.

        That is, whether `text`, as it is or as the tokenizer normalizes it, holds a special token, ends with the
        beginning of one, begins with the ending of one, or is wholly inside one (such as `im` of `<image>`). It may say
        so of other texts, too, but never misses one. It takes microseconds.
        """
        return self._guard.may_hold_special(text)

    def special_tokens(self, text: str) -> list[int]:
        """The special tokens that a trusted text holds, in order."""
        ids = self.hf_tokenizer(text, add_special_tokens=False, return_attention_mask=False)["input_ids"]
        return [token_id for token_id in ids if token_id in self._control_ids]

    @cached_property
    def _control_ids(self) -> set[int]:
        # To ask for the added tokens takes as long as a row, of a tokenizer that has thousands.
        return {token_id for token_id, token in self.hf_tokenizer.added_tokens_decoder.items() if is_control(token)}


def _guard_for(tokenizer: Any) -> _Guard:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if isinstance(backend, Tokenizer):
        return FastGuard(backend)
    if hasattr(tokenizer, "added_tokens_decoder"):
        return SlowGuard(tokenizer)
    raise SettingsError(
        f"the model's tokenizer, {type(tokenizer).__name__}, does not tell which of its tokens are special, and takes "
        'none from a prompt\'s text; if the checkpoint has a tokenizer.json, set engine.tokenizer_mode = "hf"'
    )


def _trusted_spans(prompt: Sequence[Piece]) -> list[tuple[int, int]]:
    """The spans (start, end) of a prompt's text that trusted pieces make."""
    spans: list[tuple[int, int]] = []
    at = 0
    was_trusted = False
    for piece in prompt:
        end = at + len(piece.text)
        if piece.trusted:
            spans.append((spans.pop()[0], end) if was_trusted else (at, end))
        at = end
        was_trusted = piece.trusted
    return spans
