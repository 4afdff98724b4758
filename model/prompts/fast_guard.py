"""Keeps the special tokens of a fast tokenizer out of data: what reads like one there is encoded as plain text."""

from collections.abc import Sequence
from functools import cached_property

from tokenizers import Tokenizer

from run_batch.model.declaration import RowError
from run_batch.model.prompts.added_tokens import AddedTokens
from run_batch.model.prompts.plain_model import unknown_id
from run_batch.model.prompts.plain_text import PlainTextEncoder, frame_of
from run_batch.model.prompts.special_text import SpecialText

REFUSED = "text of the row reads like a special token, which this model's tokenizer cannot take as plain text"


class FastGuard:
    """Checks what a fast tokenizer made of prompts, and encodes those anew in which data became a special token."""

    def __init__(self, backend: Tokenizer) -> None:
        self._added = AddedTokens(backend)
        self._encoder = PlainTextEncoder(backend, self._added)
        # Where the model gives the unknown token for ordinary characters, it tells nothing.
        self._is_telling = (self._added.control_tokens.keys() - {unknown_id(backend.model)}).__contains__
        self._frame = {False: ([], []), True: frame_of(backend)}

    @cached_property
    def _special_text(self) -> SpecialText:
        return SpecialText(self._added)

    def may_hold_special(self, text: str) -> bool:
        """See PromptTokenizer."""
        return self._special_text.may_be_in(text)

    def guarded(
        self, text: str, trusted: Sequence[tuple[int, int]], ids: list[int], add_special_tokens: bool
    ) -> list[int]:
        """The token ids of a prompt, with special tokens in its trusted text only.

        Args:
            trusted: the spans (start, end) of `text` that may form special tokens.
            ids: what the tokenizer made of `text`.
            add_special_tokens: with BOS and the like, as `ids` are.

        Raises:
            RowError: `prompt_special`, see PromptTokenizer.
        """
        controls, refused = self._added.control_ids(text, trusted)
        before, after = self._frame[add_special_tokens]
        expected = self._controls([*before, *controls, *after])
        if not refused and (self._controls(ids) == expected or not self._may_be_in_data(text, trusted)):
            return ids
        plain = [*before, *self._encoder.encode(text, trusted), *after]
        # What is known here of tokenizers is checked on this very text.
        if [*before, *self._encoder.encode_trusted(text), *after] != ids or self._controls(plain) != expected:
            raise RowError("prompt_special", REFUSED)
        return plain

    def _may_be_in_data(self, text: str, trusted: Sequence[tuple[int, int]]) -> bool:
        starts = [0, *(end for _, end in trusted)]
        ends = [*(start for start, _ in trusted), len(text)]
        return any(self.may_hold_special(text[a:b]) for a, b in zip(starts, ends, strict=True) if a < b)

    def _controls(self, ids: Sequence[int]) -> list[int]:
        return list(filter(self._is_telling, ids))
