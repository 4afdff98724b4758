"""Expands prompts by the code of vLLM's own processor, without its images.

What stands for an image depends on its size alone, so vLLM's processor is asked once for each size. It then puts that
into a prompt with each run of features as short as one token, and the runs get their length afterwards: a prompt of
thousands of image tokens takes no longer than its text.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, chain
from typing import Any

import numpy as np
from vllm.multimodal.inputs import (
    MultiModalBatchedField,
    MultiModalFieldElem,
    MultiModalKwargsItem,
    MultiModalKwargsItems,
)

from run_batch.model.declaration import MappedItem, PlaceholderRange, RowError, TokenizedPrompt
from run_batch.model.rendering.job_faults import describe, raise_if_no_rows_fault, root_of
from run_batch.model.rendering.lru_cache import LruCache
from run_batch.model.rendering.retokenized_text import SpecialTokenCheck

# Of what stands for images of the sizes used last, with its tokens at eight bytes each.
_KEPT_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class _Placeholder:
    """What stands for an image of one size in a prompt.

    Attributes:
        length: of all of its tokens.
        is_embed: see PlaceholderRange.
        updates: vLLM's ways of putting it into a prompt, with each run of equal feature tokens as one token.
        runs: where those are in the short form, and how long each run is.
    """

    length: int
    is_embed: tuple[bool, ...] | None
    updates: Sequence[Any]
    runs: Sequence[tuple[int, int]]


class VllmExpansion:
    """An input processor (see Declaration) that gives what vLLM's own processor for a model gives.

    Args:
        processor: a BaseMultiModalProcessor of vLLM.
    """

    def __init__(self, processor: Any) -> None:
        self._processor = processor
        self._special_tokens = SpecialTokenCheck(processor.info.get_tokenizer())
        self._kept: LruCache[_Placeholder] = LruCache(_KEPT_BYTES)

    def __call__(self, context: Any, prompts: Sequence[TokenizedPrompt]) -> list[TokenizedPrompt]:
        """Expand all prompts.

        Raises:
            RowError: `image_processing`, vLLM's code fails on a prompt, or makes a special token of its text.
        """
        return [self._expand(prompt) if prompt.items else prompt for prompt in prompts]

    def _expand(self, prompt: TokenizedPrompt) -> TokenizedPrompt:
        try:
            placeholders, short, starts = self._in_short(prompt)
        # Processors raise exceptions of any type for images and prompts that they cannot take.
        except Exception as error:
            raise_if_no_rows_fault(error)
            raise RowError("image_processing", describe(root_of(error))) from error
        expanded = _lengthened(prompt, short, starts, placeholders)
        self._special_tokens.check(prompt.prompt_token_ids, expanded.prompt_token_ids, expanded.placeholders)
        return expanded

    def _in_short(self, prompt: TokenizedPrompt) -> tuple[list[_Placeholder], list[int], list[int]]:
        """The prompt's placeholders, its tokens with each run of features as one, and where the placeholders begin."""
        own, placeholders = self._processor, [self._placeholder(item) for item in prompt.items]
        updates = [
            [replace(update, item_idx=index) for update in placeholder.updates]
            for index, placeholder in enumerate(placeholders)
        ]
        short, found = own._apply_prompt_updates(own._postprocess_prompt(prompt.prompt_token_ids), {"image": updates})
        own._validate_mm_placeholders(found, {"image": len(updates)})
        return placeholders, short, [place.start_idx for place in found["image"]]

    def _placeholder(self, item: MappedItem) -> _Placeholder:
        key = f"{item.width}x{item.height}"
        kept = self._kept.get(key)
        if kept is None:
            kept = _short_form(self._updates(item))
            self._kept.put(key, kept, 8 * kept.length)
        return kept

    def _updates(self, item: MappedItem) -> Sequence[Any]:
        """vLLM's ways of putting what stands for an image into a prompt."""
        # An image of that size which takes no memory.
        image = np.broadcast_to(np.zeros(1, np.uint8), (item.height, item.width, 3))
        items = self._processor.info.parse_mm_data({"image": [image]}, validate=False)
        # Some processors look at how many tiles an image has.
        numbers = {
            name: MultiModalFieldElem(data=tensor, field=MultiModalBatchedField(keep_on_cpu=True))
            for name, tensor in item.tensors.items()
            if tensor.ndim == 0
        }
        kwargs = MultiModalKwargsItems({"image": [MultiModalKwargsItem(numbers)]})
        return self._processor._get_mm_prompt_updates(items, {}, kwargs)["image"][0]


def _short_form(updates: Sequence[Any]) -> _Placeholder:
    content = updates[0].content
    tokens = list(content.full)
    is_embed = None if content.is_embed is None else tuple(content.is_embed(tokens).tolist())
    short: list[int] = []
    runs: list[tuple[int, int]] = []
    for position, token in enumerate(tokens):
        is_feature = is_embed is None or is_embed[position]
        goes_on = is_feature and runs and runs[-1][0] == len(short) - 1 and short[-1] == token
        if goes_on:
            runs[-1] = (runs[-1][0], runs[-1][1] + 1)
            continue
        if is_feature:
            runs.append((len(short), 1))
        short.append(token)
    shortened = [update.with_content(replace(content, full=short)) for update in updates]
    return _Placeholder(len(tokens), is_embed, shortened, runs)


def _lengthened(
    prompt: TokenizedPrompt, short: list[int], starts: Sequence[int], placeholders: Sequence[_Placeholder]
) -> TokenizedPrompt:
    """The expanded prompt, of the one in which each run of features is a token.

    Args:
        starts: where each placeholder begins in `short`.
    """
    counts = [1] * len(short)
    for start, placeholder in zip(starts, placeholders, strict=True):
        for position, length in placeholder.runs:
            counts[start + position] = length
    tokens = chain.from_iterable([token] * count for token, count in zip(short, counts, strict=True))
    offsets = [0, *accumulate(counts)]
    ranges = (
        PlaceholderRange(offsets[start], placeholder.length, placeholder.is_embed)
        for start, placeholder in zip(starts, placeholders, strict=True)
    )
    return replace(prompt, prompt_token_ids=list(tokens), placeholders=tuple(ranges))
