"""Splits a prompt at the added tokens of a fast tokenizer, as the `tokenizers` library does it.

Tokens that are not normalized are looked for in the text as it is; then each section between them is normalized, and
the others are looked for in what results. So `＜image＞` is the token `<image>` for some tokenizers, and the text of a
section depends on the tokens around it.
"""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tokenizers import AddedToken, PreTokenizedString, Regex, Tokenizer

from run_batch.model.prompts.token_patterns import WHITE_SPACE, IsTrusted, Match, TokenPattern, TokenPatterns, inside

# A space, in the vocabularies of many tokenizers.
SPACE_MARK = "▁"
SPACES = WHITE_SPACE + SPACE_MARK

# What models with byte fallback write characters with that their vocabulary lacks.
_BYTE = re.compile("<0x[0-9A-F]{2}>")
_CHARACTER = Regex(r"[\s\S]")


@dataclass(frozen=True, slots=True)
class Section:
    """Normalized text between added tokens; `starts_prompt` where its first character is the prompt's first."""

    text: str
    starts_prompt: bool


@dataclass(frozen=True, slots=True)
class SplitPrompt:
    """A prompt, split at its added tokens.

    Attributes:
        parts: ids of added tokens, and the text between them.
        refused: text that reads like a control token was left as text.
    """

    parts: list[int | Section]
    refused: bool


def is_control(token: AddedToken) -> bool:
    """Whether an added token means something to the model, so that text of the data must not form it.

    Others are there to write text with, and data is written with them as the model has learned it: white space (line
    breaks of Gemma, indentation of GPT-NeoX), single characters, bytes, and words that somebody added to the
    vocabulary, which are not special and hold nothing but letters, digits and spaces.
    """
    text = token.content.strip(SPACES)
    if len(text) <= 1 or _BYTE.fullmatch(text):
        return False
    has_signs = any(unicodedata.category(c)[0] not in "LMN" for c in text if c not in SPACES)
    return token.special or has_signs


class AddedTokens:
    """The added tokens of a fast tokenizer.

    Attributes:
        control_tokens: the text of each control token, by its id.
        may_be_in_normalized_text: control tokens may arise from text that reads like one only once it is normalized.
    """

    def __init__(self, backend: Tokenizer) -> None:
        self.backend = backend
        added = {
            token_id: token
            for token_id, token in backend.get_added_tokens_decoder().items()
            if token.content and not (token.special and backend.encode_special_tokens)
        }
        self.control_tokens = {token_id: token.content for token_id, token in added.items() if is_control(token)}
        written, normalized = self._patterns(added)
        self._written, self._normalized = TokenPatterns(written), TokenPatterns(normalized)
        in_vocabulary = any(backend.model.id_to_token(token_id) is not None for token_id in self.control_tokens)
        self.may_be_in_normalized_text = backend.normalizer is not None and (
            self._normalized.has_control or in_vocabulary
        )

    def control_ids(self, text: str, trusted: Sequence[tuple[int, int]]) -> tuple[list[int], bool]:
        """The control tokens that the trusted spans of a text hold, and whether text elsewhere reads like one."""
        if self._normalized.has_control:
            split = self.split(text, trusted)
            ids = [part for part in split.parts if isinstance(part, int)]
            return [token_id for token_id in ids if token_id in self.control_tokens], split.refused
        matches, refused = self._written.find(text, inside(trusted))
        return [match.pattern.token_id for match in matches if match.pattern.control], refused

    def split(self, text: str, trusted: Sequence[tuple[int, int]]) -> SplitPrompt:
        """Split a prompt's text.

        Args:
            trusted: the spans (start, end) of `text` that may form control tokens, each within itself.
        """
        is_trusted = inside(trusted)
        matches, refused = self._written.find(text, is_trusted)
        parts: list[int | Section] = []
        for part in _tokens_and_spans(matches, len(text)):
            if isinstance(part, int):
                parts.append(part)
            else:
                section = self._split_section(text, part, is_trusted)
                parts.extend(section.parts)
                refused |= section.refused
        return SplitPrompt(parts, refused)

    def normalize(self, text: str) -> str:
        """`text` as the tokenizer's normalizer makes it."""
        return self.backend.normalizer.normalize_str(text) if self.backend.normalizer else text

    def _patterns(self, added: dict[int, AddedToken]) -> tuple[dict[str, TokenPattern], dict[str, TokenPattern]]:
        """The patterns of added tokens as they are written, and of those that are looked for in normalized text."""
        forms: tuple[dict[str, TokenPattern], dict[str, TokenPattern]] = {}, {}
        for token_id, token in added.items():
            text = self.normalize(token.content) if token.normalized else token.content
            patterns = forms[token.normalized]
            # Of tokens that are the same when normalized, the tokenizer itself says which one counts.
            if text and (text not in patterns or self._ids_of(token.content) == [token_id]):
                control = token_id in self.control_tokens
                patterns[text] = TokenPattern(token_id, control, token.single_word, token.lstrip, token.rstrip)
        return forms

    def _ids_of(self, text: str) -> list[int]:
        return self.backend.encode(text, add_special_tokens=False).ids

    def _split_section(self, text: str, span: tuple[int, int], is_trusted: IsTrusted) -> SplitPrompt:
        """Split the normalized form of a span of `text` at the tokens that are looked for there."""
        start, end = span
        normalized = self.normalize(text[start:end])
        if not self._normalized.are_in(normalized):
            return SplitPrompt([Section(normalized, start == 0)] if normalized else [], False)
        origins = [(start + begin, start + stop) for begin, stop in self._origins(text[start:end], normalized)]

        def is_trusted_when_normalized(first: int, last: int) -> bool:
            # The token may take a space before it, which anybody may have written, for its own mark of a space.
            origin = text[origins[first][0] : origins[last - 1][1]]
            begin = origins[last - 1][1] - len(origin.lstrip(SPACES))
            return is_trusted(begin, begin + len(origin.strip(SPACES)))

        matches, refused = self._normalized.find(normalized, is_trusted_when_normalized)
        parts = [
            part if isinstance(part, int) else Section(normalized[part[0] : part[1]], origins[part[0]][0] == 0)
            for part in _tokens_and_spans(matches, len(normalized))
        ]
        return SplitPrompt(parts, refused)

    def _origins(self, text: str, normalized: str) -> list[tuple[int, int]]:
        """For each character of `normalized`, the span of `text` that it was made of."""
        if normalized == text:
            return [(i, i + 1) for i in range(len(text))]
        characters = PreTokenizedString(text)
        characters.normalize(self.backend.normalizer.normalize)
        characters.split(lambda _, section: section.split(_CHARACTER, "isolated"))
        return [span for _, span, _ in characters.get_splits("original", "char")]


def _tokens_and_spans(matches: Sequence[Match], length: int) -> Iterator[int | tuple[int, int]]:
    """The ids of the tokens that were found in a text of some length, and the spans of text between them."""
    at = 0
    for match in matches:
        if at < match.start:
            yield at, match.start
        yield match.pattern.token_id
        at = match.end
    if at < length:
        yield at, length
