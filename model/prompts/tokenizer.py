"""Tokenizes prompts in bulk, so that text from the data never becomes a special token.

A prompt is a list of pieces. Each is either written by the job's author (the template, where `<image>` or `</s>` is the
special token) or taken from the data (where it is plain text).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from run_batch.model.declaration import RowError


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of prompt text; only `trusted` text may hold special tokens."""

    text: str
    trusted: bool


class PromptTokenizer:
    """Tokenizes prompts as the model's own tokenizer does, except that data never becomes a special token."""

    def __init__(self, tokenizer: Any) -> None:
        self.hf_tokenizer = self._tokenizer = tokenizer
        added = sorted((t.content for t in tokenizer.added_tokens_decoder.values()), key=len, reverse=True)
        self._special = re.compile("|".join(map(re.escape, added)) or r"(?!)")

    def encode(self, prompts: Sequence[Sequence[Piece]], add_special_tokens: bool) -> list[list[int]]:
        """Token ids of each prompt.

        Args:
            add_special_tokens: add the tokenizer's own BOS and the like (not after a chat template).

        Raises:
            RowError: `prompt_too_long`, where one of the prompts holds too many different characters.
        """
        texts = ["".join(piece.text for piece in prompt) for prompt in prompts]
        if not texts:
            return []
        encoded = self._tokenizer(texts, add_special_tokens=add_special_tokens, return_attention_mask=False)
        token_ids: list[list[int]] = encoded["input_ids"]
        for index, prompt in enumerate(prompts):
            spans = self._data_specials(prompt)
            if spans:
                token_ids[index] = self._encode_guarded(texts[index], spans, add_special_tokens)
        return token_ids

    def may_hold_special(self, text: str) -> bool:
        """Whether `text` holds what reads like a special token, alone or with what may stand beside it."""
        return self._special.search(text) is not None

    def special_tokens(self, text: str) -> list[int]:
        """The special tokens that a text holds, in order."""
        ids = self._tokenizer(text, add_special_tokens=False, return_attention_mask=False)["input_ids"]
        return [token_id for token_id in ids if token_id in self._tokenizer.added_tokens_decoder]

    def _data_specials(self, prompt: Sequence[Piece]) -> list[tuple[int, int]]:
        """Spans (start, end) of text that looks like a special token, but is not wholly within a trusted piece."""
        if all(piece.trusted for piece in prompt):
            return []
        trusted: list[tuple[int, int]] = []
        position = 0
        for piece in prompt:
            if piece.trusted:
                trusted.append((position, position + len(piece.text)))
            position += len(piece.text)
        text = "".join(piece.text for piece in prompt)
        return [
            match.span()
            for match in self._special.finditer(text)
            if not any(start <= match.start() and match.end() <= end for start, end in trusted)
        ]

    def _encode_guarded(self, text: str, spans: list[tuple[int, int]], add_special_tokens: bool) -> list[int]:
        """Tokenize `text` with each span taken as plain characters.

        A stand-in character, which no tokenizer treats specially, replaces each span; the tokens that cover it are
        then replaced by the plain encoding of the characters that they cover.
        """
        stand_in = _unused_character(text)
        guarded, cut = "", 0
        for start, end in spans:
            guarded += text[cut:start] + stand_in
            cut = end
        guarded += text[cut:]
        originals = iter([text[start:end] for start, end in spans])

        encoding = self._tokenizer(
            guarded,
            add_special_tokens=add_special_tokens,
            return_offsets_mapping=True,
            return_attention_mask=False,
        )
        tokens = list(zip(encoding["input_ids"], encoding["offset_mapping"], strict=True))
        result: list[int] = []
        index = 0
        while index < len(tokens):
            token_id, (start, end) = tokens[index]
            if stand_in not in guarded[start:end]:
                result.append(token_id)
                index += 1
                continue
            # Byte-level tokenizers give one character several tokens with the same offsets: these belong together.
            stop = index + 1
            while stop < len(tokens) and tokens[stop][1][0] < end:
                end = max(end, tokens[stop][1][1])
                stop += 1
            covered = "".join(next(originals) if c == stand_in else c for c in guarded[start:end])
            result.extend(self._encode_as_text(covered))
            index = stop
        return result

    def _encode_as_text(self, text: str) -> list[int]:
        backend = self._tokenizer.backend_tokenizer
        before = backend.encode_special_tokens
        backend.encode_special_tokens = True
        try:
            ids: list[int] = backend.encode(text, add_special_tokens=False).ids
        finally:
            backend.encode_special_tokens = before
        # Tokenizers that mark word starts add such a mark here, in the middle of a prompt. It does no harm: the
        # characters of the data are kept, and no special token appears.
        return ids


def _unused_character(text: str) -> str:
    """A character that is not in `text`: for private use, unless `text` holds all of those."""
    used = set(text)
    private = chain(range(0xE000, 0xF900), range(0xF0000, 0xFFFFE), range(0x100000, 0x10FFFE))
    for code in chain(private, range(0x20000, 0xE0000), range(0x3000, 0xD800)):
        if chr(code) not in used:
            return chr(code)
    raise RowError("prompt_too_long", "the prompt holds more characters than can be told apart")
