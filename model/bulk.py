"""Many tokenized prompts with their images at once, through what a model declares, to what vLLM's engine takes.

This is the only place where mappers and input processors are called: the worker processes call it with many rows,
vLLM's own processor (run_batch.model.processor) with one, so both paths give the same result.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from blake3 import blake3
from vllm.inputs.engine import MultiModalInput, TokensInput, mm_input, tokens_input
from vllm.multimodal.inputs import (
    MultiModalBatchedField,
    MultiModalFieldElem,
    MultiModalKwargsItem,
    MultiModalKwargsItems,
)
from vllm.multimodal.inputs import PlaceholderRange as VllmPlaceholderRange
from vllm.multimodal.processing import InputProcessingContext

from run_batch.model.declaration import Declaration, DeclarationError, MappedItem, RowError, TokenizedPrompt
from run_batch.model.recent import Recent

# Mapped images that are kept in case that rows to come hold them too, per worker process.
_RECENT_BYTES = 128 << 20

EngineInput: TypeAlias = MultiModalInput | TokensInput


@dataclass(frozen=True, slots=True)
class Prompt:
    """One tokenized prompt before mapping.

    Attributes:
        prompt_token_ids: one placeholder token per image.
        images: PIL images in mode RGB, or tensors of precomputed features.
    """

    prompt_token_ids: list[int]
    images: Sequence[Any] = ()


class BulkMapper:
    """Calls one model's mappers and input processor on many prompts."""

    def __init__(self, context: InputProcessingContext, declaration: Declaration) -> None:
        self._context = context
        self._declaration = declaration
        self._recent: Recent[tuple[Any, MappedItem]] = Recent(_RECENT_BYTES)

    def map(self, prompts: Sequence[Prompt]) -> list[EngineInput | RowError]:
        """Map all prompts; one that cannot be mapped gives its RowError in its place, the others are untouched.

        Raises:
            DeclarationError: a mapper or input processor breaks its contract.
        """
        try:
            return list(self._map_all(prompts))
        except RowError as error:
            if len(prompts) == 1:
                return [error]
        # One of them is bad: find out which.
        return [self.map([prompt])[0] for prompt in prompts]

    def _map_all(self, prompts: Sequence[Prompt]) -> list[EngineInput]:
        mapped = iter(self._map_items([image for prompt in prompts for image in prompt.images]))
        tokenized = [
            TokenizedPrompt(prompt.prompt_token_ids, tuple(next(mapped) for _ in prompt.images)) for prompt in prompts
        ]
        return [engine_input(prompt) for prompt in self._expand(tokenized)]

    def _map_items(self, images: Sequence[Any]) -> list[MappedItem]:
        """Map each image object once, also when several rows, or rows of the last batches, hold it."""
        known = {id(image): self._recent.get(id(image)) for image in images}
        new = list({id(image): image for image in images if known[id(image)] is None}.values())
        for image, item in self._map_new(new):
            known[id(image)] = (image, item)
            # With the image, so that no other image can get its id while the item is kept.
            self._recent.put(id(image), (image, item), _nbytes(item))
        return [entry[1] for image in images if (entry := known[id(image)]) is not None]

    def _map_new(self, images: list[Any]) -> Iterator[tuple[Any, MappedItem]]:
        by_mapper: dict[str, list[Any]] = {}
        for image in images:
            by_mapper.setdefault(self._declaration.mapper_for(image)[0], []).append(image)
        for key, items in by_mapper.items():
            tensors = self._declaration.mappers[key](self._context, items)
            self._check_batched(key, tensors, len(items))
            for position, item in enumerate(items):
                own = {name: values[position] for name, values in tensors.items()}
                yield item, MappedItem("image", own, hash_tensors(own), *_pixel_size(item))

    def _check_batched(self, key: str, tensors: Any, count: int) -> None:
        where = f"{self._declaration.model_cls.__name__}'s input mapper for {key}"
        if not isinstance(tensors, Mapping) or not tensors:
            raise DeclarationError(
                f"{where} must give keyword tensors (a mapping of name to tensor), found {type(tensors).__name__}"
            )
        for name, values in tensors.items():
            if isinstance(values, torch.Tensor) and values.ndim == 0:
                raise DeclarationError(f"{where} gave {name} without a batch dimension; stack one entry per item")
            entries_ok = isinstance(values, torch.Tensor) or (
                isinstance(values, list | tuple) and all(isinstance(v, torch.Tensor) for v in values)
            )
            if not entries_ok:
                raise DeclarationError(
                    f"{where} gave {name} as {type(values).__name__}; expected a tensor or a list of tensors"
                )
            if len(values) != count:
                raise DeclarationError(
                    f"{where} gave {len(values)} entries in {name} for {count} items; the first dimension must be "
                    "the items of the batch"
                )

    def _expand(self, prompts: list[TokenizedPrompt]) -> list[TokenizedPrompt]:
        processor = self._declaration.input_processor
        expanded = prompts if processor is None else processor(self._context, prompts)
        where = f"{self._declaration.model_cls.__name__}'s input processor"
        if len(expanded) != len(prompts):
            raise DeclarationError(f"{where} took {len(prompts)} prompts and gave {len(expanded)} back")
        for before, after in zip(prompts, expanded, strict=True):
            if len(after.placeholders) != len(before.items):
                raise DeclarationError(
                    f"{where} gave {len(after.placeholders)} placeholder ranges for a prompt with "
                    f"{len(before.items)} images; give one range per image (TokenizedPrompt.expand does)"
                )
            _check_feature_counts(after)
        return list(expanded)


def _check_feature_counts(prompt: TokenizedPrompt) -> None:
    """Precomputed features tell their number: it has to be that of the placeholder tokens."""
    for item, placeholder in zip(prompt.items, prompt.placeholders, strict=True):
        features = item.tensors.get("image_features")
        if features is not None and len(features) != placeholder.num_features:
            raise RowError(
                "placeholders",
                f"the prompt has {placeholder.num_features} placeholder tokens for an image with {len(features)} "
                "features",
            )


def _pixel_size(image: Any) -> tuple[int, int]:
    return (0, 0) if isinstance(image, torch.Tensor) else image.size


def engine_input(prompt: TokenizedPrompt) -> EngineInput:
    """The rendered input that `LLMEngine.add_request` takes, for one expanded prompt."""
    if not prompt.items:
        return tokens_input(prompt.prompt_token_ids)
    return mm_input(
        prompt_token_ids=prompt.prompt_token_ids,
        mm_kwargs=MultiModalKwargsItems({"image": [_kwargs_item(item) for item in prompt.items]}),
        mm_hashes={"image": [item.content_hash for item in prompt.items]},
        mm_placeholders={
            "image": [
                VllmPlaceholderRange(
                    offset=r.offset,
                    length=r.length,
                    is_embed=None if r.is_embed is None else torch.tensor(r.is_embed, dtype=torch.bool),
                )
                for r in prompt.placeholders
            ]
        },
    )


def _kwargs_item(item: MappedItem) -> MultiModalKwargsItem:
    field = MultiModalBatchedField()
    return MultiModalKwargsItem(
        {name: MultiModalFieldElem(data=tensor, field=field) for name, tensor in item.tensors.items()}
    )


def _nbytes(item: MappedItem) -> int:
    return sum(tensor.nbytes for tensor in item.tensors.values())


def hash_tensors(tensors: Mapping[str, torch.Tensor]) -> str:
    """Identity of a mapped item, for vLLM's encoder and prefix caches: BLAKE3 of names, dtypes, shapes, values."""
    digest = blake3()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
