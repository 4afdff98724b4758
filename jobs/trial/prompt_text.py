"""A prompt's token ids as text: special tokens visible, runs of an image's placeholder tokens abbreviated."""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any


def image_ranges(engine_input: Any) -> list[Any]:
    """Where the images of a row are in its prompt: vLLM's PlaceholderRange of each, in order."""
    placeholders: Mapping[str, Sequence[Any]] = engine_input.get("mm_placeholders") or {}
    return sorted((place for places in placeholders.values() for place in places), key=lambda place: place.offset)


def media_tokens(engine_input: Any) -> list[int]:
    """How many tokens each image of a row takes in its prompt, and then each video."""
    placeholders: Mapping[str, Sequence[Any]] = engine_input.get("mm_placeholders") or {}
    by_modality = (sorted(placeholders[name], key=lambda place: place.offset) for name in sorted(placeholders))
    return [place.length for places in by_modality for place in places]


def prompt_text(tokenizer: Any, engine_input: Any) -> str:
    """The prompt that the model gets, such as `<s>USER: [<image> x 576] what is this?`."""
    token_ids: list[int] = engine_input["prompt_token_ids"]
    parts, done = [], 0
    for place in image_ranges(engine_input):
        stop = place.offset + place.length
        parts += [_decode(tokenizer, token_ids, done, place.offset), _runs(tokenizer, token_ids[place.offset : stop])]
        done = stop
    return "".join([*parts, _decode(tokenizer, token_ids, done, len(token_ids))])


def _decode(tokenizer: Any, token_ids: Sequence[int], start: int, stop: int) -> str:
    """The text of tokens start..stop-1. Many tokenizers drop a space before the first token: so one more is decoded."""
    if start == stop:
        return ""
    before = tokenizer.decode(list(token_ids[max(start - 1, 0) : start]), skip_special_tokens=False) if start else ""
    text: str = tokenizer.decode(list(token_ids[max(start - 1, 0) : stop]), skip_special_tokens=False)
    return text.removeprefix(before)


def _runs(tokenizer: Any, token_ids: Sequence[int]) -> str:
    found = []
    for token_id, run in groupby(token_ids):
        name, count = tokenizer.decode([token_id], skip_special_tokens=False), sum(1 for _ in run)
        found.append(f"[{name} x {count}]" if count > 1 else name)
    return "".join(found)


def special_names_in_text(tokenizer: Any, engine_input: Any) -> dict[str, int]:
    """Special tokens' names that stand in the prompt as plain text, as a row's data may hold them; and how often."""
    token_ids: list[int] = engine_input["prompt_token_ids"]
    counts = Counter(token_ids)
    text = tokenizer.decode(token_ids, skip_special_tokens=False)
    found = {}
    for token_id, token in tokenizer.added_tokens_decoder.items():
        as_text = text.count(token.content) - counts[token_id]
        if as_text > 0 and token.content.strip():
            found[token.content] = as_text
    return found
