"""Encodes prompts in which text of the data reads like a control token, as if the tokenizer had no such token there.

Everything else goes through the tokenizer's own parts: its added tokens where the author wrote them, its normalizer and
pre-tokenizer for the text between, its model less the control tokens.
"""

from collections.abc import Sequence
from functools import cached_property

from tokenizers import PreTokenizedString, Token, Tokenizer
from tokenizers.models import Model, WordLevel

from run_batch.model.prompts.added_tokens import AddedTokens, Section
from run_batch.model.prompts.plain_model import without_tokens


class PlainTextEncoder:
    """Encodes prompts with their control tokens in trusted text only."""

    def __init__(self, backend: Tokenizer, added: AddedTokens) -> None:
        self._backend = backend
        self._added = added

    def encode(self, text: str, trusted: Sequence[tuple[int, int]]) -> list[int]:
        """Token ids of a prompt, without BOS and the like.

        Args:
            trusted: the spans (start, end) of `text` that may form control tokens, each within itself.
        """
        return self._encode(text, trusted, self._plain_model)

    def encode_trusted(self, text: str) -> list[int]:
        """Token ids of a text that may form control tokens everywhere: what the tokenizer itself gives."""
        return self._encode(text, [(0, len(text))], self._backend.model)

    @cached_property
    def _plain_model(self) -> Model:
        model = self._backend.model
        if all(model.id_to_token(token_id) is None for token_id in self._added.control_tokens):
            return model
        return without_tokens(model, self._added.control_tokens)

    def _encode(self, text: str, trusted: Sequence[tuple[int, int]], model: Model) -> list[int]:
        ids: list[int] = []
        for part in self._added.split(text, trusted).parts:
            ids.extend(self._encode_section(part, model) if isinstance(part, Section) else [part])
        return ids

    def _encode_section(self, section: Section, model: Model) -> list[int]:
        # Pre-tokenizers may treat the beginning of a prompt in another way: elsewhere, something comes before.
        text = PreTokenizedString(section.text if section.starts_prompt else "." + section.text)
        if not section.starts_prompt:
            text.split(lambda _, whole: [whole.slice((1, 1 + len(section.text)))])
        if self._backend.pre_tokenizer is not None:
            self._backend.pre_tokenizer.pre_tokenize(text)
        text.tokenize(model.tokenize)
        return text.to_encoding().ids


def frame_of(backend: Tokenizer) -> tuple[list[int], list[int]]:
    """The token ids that the tokenizer's post-processor puts before and after a prompt, such as BOS."""
    prompt = PreTokenizedString(".")
    prompt.tokenize(lambda text: [Token(0, text, (0, 1))])
    # Not by `backend` itself, which may also cut prompts and pad them.
    framing = Tokenizer(WordLevel({}, unk_token=""))
    framing.post_processor = backend.post_processor
    framed = framing.post_process(prompt.to_encoding(), None, True)
    at = framed.special_tokens_mask.index(0)
    return framed.ids[:at], framed.ids[at + 1 :]
