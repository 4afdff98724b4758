"""Finds the added tokens of a tokenizer in a text, as the `tokenizers` library does: the longest token at the leftmost
place counts, and the next is looked for after it. Control tokens in text that is not trusted are passed over.
"""

import re
import unicodedata
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from os.path import commonprefix
from typing import NamedTuple

# White space and word characters as Rust's regular expressions have them; Python's differ in a few characters.
WHITE_SPACE = "\t\n\v\f\r \x85\xa0\u1680" + "".join(map(chr, range(0x2000, 0x200B))) + "\u2028\u2029\u202f\u205f\u3000"
_WORD_CATEGORIES = ("L", "M", "Nd", "Nl", "Pc")
_JOINERS = "\u200c\u200d"
_CIRCLED_LETTERS = re.compile("[\u24b6-\u24e9\U0001f130-\U0001f149\U0001f150-\U0001f169\U0001f170-\U0001f189]")

# Levels of nested groups in a regular expression; beyond, tokens with a common beginning are listed one by one.
_NESTING = 40

IsTrusted = Callable[[int, int], bool]


@dataclass(frozen=True, slots=True)
class TokenPattern:
    """How one added token is found in a text.

    Attributes:
        control: it means something to the model, so data must not form it; see `added_tokens.py`.
        single_word: it counts only where no letter or digit touches it.
        lstrip: it takes the white space before it.
        rstrip: it takes the white space after it.
    """

    token_id: int
    control: bool
    single_word: bool
    lstrip: bool
    rstrip: bool


class Match(NamedTuple):
    """An added token at text[start:end], with the white space that it takes."""

    pattern: TokenPattern
    start: int
    end: int


class TokenPatterns:
    """The added tokens that are looked for in one form of a text: as it is written, or normalized."""

    def __init__(self, patterns: Mapping[str, TokenPattern]) -> None:
        self._patterns = patterns
        self._lengths = sorted({len(text) for text in patterns}, reverse=True)
        self._any = re.compile(longest_of(patterns))
        self.has_control = any(pattern.control for pattern in patterns.values())

    def are_in(self, text: str) -> bool:
        """Whether `text` holds one of the tokens."""
        return self._any.search(text) is not None

    def find(self, text: str, is_trusted: IsTrusted) -> tuple[list[Match], bool]:
        """The added tokens of a text, in order, and whether others were passed over.

        Args:
            is_trusted: whether text[start:end] may form a control token.
        """
        matches: list[Match] = []
        refused = False
        at = taken = 0
        while (found := self._any.search(text, at)) is not None:
            start, end = found.span()
            pattern = self._patterns.get(found[0])
            if pattern is not None and pattern.control and not is_trusted(start, end):
                refused = True
                pattern, end = self._shorter(text, start, end, is_trusted)
            at = end
            if pattern is None or (pattern.single_word and _touches_word(text, start, end)):
                continue
            if pattern.lstrip:
                start = max(taken, len(text[:start].rstrip(WHITE_SPACE)))
            if pattern.rstrip:
                end = len(text) - len(text[end:].lstrip(WHITE_SPACE))
            matches.append(Match(pattern, start, end))
            taken = end
        return matches, refused

    def _shorter(self, text: str, start: int, end: int, is_trusted: IsTrusted) -> tuple[TokenPattern | None, int]:
        """The longest token that may be at `start` and ends before `end`, with its end; or None and the next place."""
        for length in self._lengths:
            if length < end - start:
                pattern = self._patterns.get(text[start : start + length])
                if pattern is not None and (not pattern.control or is_trusted(start, start + length)):
                    return pattern, start + length
        return None, start + 1


def inside(spans: Sequence[tuple[int, int]]) -> IsTrusted:
    """A function that tells whether text[start:end] lies within one of `spans`, which are in order and disjoint."""
    starts = [start for start, _ in spans]

    def is_inside(start: int, end: int) -> bool:
        index = bisect_right(starts, start) - 1
        return index >= 0 and end <= spans[index][1]

    return is_inside


def longest_of(words: Collection[str], nesting: int = 0) -> str:
    """A regular expression that matches the longest of `words`. Its time at a place does not grow with their number."""
    if not words:
        return "(?!)"
    if nesting == _NESTING:
        return f"(?:{'|'.join(map(re.escape, sorted(words, key=len, reverse=True)))})"
    rest = defaultdict(set)
    for word in words:
        if word:
            rest[word[0]].add(word)
    branches = []
    for group in rest.values():
        start = commonprefix(list(group))  # noqa: RUF071 - of words, not paths
        ends = {word[len(start) :] for word in group}
        branches.append(re.escape(start) + (longest_of(ends, nesting + 1) if len(ends) > 1 else ""))
    return f"(?:{'|'.join(branches)}){'?' if '' in words else ''}"


def _touches_word(text: str, start: int, end: int) -> bool:
    return (start > 0 and _is_word(text[start - 1])) or (end < len(text) and _is_word(text[end]))


def _is_word(character: str) -> bool:
    return (
        unicodedata.category(character).startswith(_WORD_CATEGORIES)
        or character in _JOINERS
        or _CIRCLED_LETTERS.match(character) is not None
    )
