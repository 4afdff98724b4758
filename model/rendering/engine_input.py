"""The form in which vLLM's engine takes a rendered row."""

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from vllm.inputs.engine import MultiModalInput, TokensInput, mm_input, tokens_input
from vllm.multimodal.inputs import (
    BaseMultiModalField,
    MultiModalBatchedField,
    MultiModalFieldElem,
    MultiModalFlatField,
    MultiModalKwargsItem,
    MultiModalKwargsItems,
    MultiModalSharedField,
)
from vllm.multimodal.inputs import PlaceholderRange as VllmPlaceholderRange

from run_batch.model.declaration import MappedItem, PlaceholderRange, TensorLayout, TokenizedPrompt
from run_batch.model.rendering.device_pixels import WholeMaskField, device_pixels_field
from run_batch.model.rendering.feature_counts import FEATURE_COUNTS

EngineInput: TypeAlias = MultiModalInput | TokensInput

_STACKED = TensorLayout()
_FIELD, _FIELD_ON_CPU = MultiModalBatchedField(), MultiModalBatchedField(keep_on_cpu=True)


def engine_input(prompt: TokenizedPrompt, layout: TensorLayout = _STACKED, counts_features: bool = True) -> EngineInput:
    """Build what `LLMEngine.add_request` takes from one expanded prompt.

    Args:
        layout: of the tensors of its images.
        counts_features: whether the model's class compares placeholders with features (feature_counts.py).
    """
    if not prompt.items:
        return tokens_input(prompt.prompt_token_ids)
    items = [_elements(item, layout, prompt.items) for item in prompt.items]
    if counts_features:
        for elements, placeholder in zip(items, prompt.placeholders, strict=True):
            elements[FEATURE_COUNTS] = _count(placeholder)
    return mm_input(
        prompt_token_ids=prompt.prompt_token_ids,
        mm_kwargs=MultiModalKwargsItems({"image": [MultiModalKwargsItem(elements) for elements in items]}),
        mm_hashes={"image": [item.content_hash for item in prompt.items]},
        mm_placeholders={
            "image": [
                VllmPlaceholderRange(
                    offset=r.offset,
                    length=r.length,
                    is_embed=None if r.is_embed is None else torch.from_numpy(np.array(r.is_embed, dtype=bool)),
                )
                for r in prompt.placeholders
            ]
        },
    )


def tensor_bytes(rendered: EngineInput) -> int:
    """Bytes of the tensors in what the engine takes of one row."""
    return sum(item_bytes(item) for items in (rendered.get("mm_kwargs") or {}).values() for item in items)


def item_bytes(item: MultiModalKwargsItem) -> int:
    """Bytes of the tensors of one image."""
    return sum(_nbytes(element.data) for element in item.values())


def alone(data: Any) -> Any:
    """Tensors, in lists at any depth, with memory of their own: a part of a larger one would keep all of it."""
    if isinstance(data, torch.Tensor):
        return data if data.untyped_storage().nbytes() <= data.nbytes else data.clone()
    return [alone(part) for part in data] if isinstance(data, list | tuple) else data


def _nbytes(data: Any) -> int:
    if isinstance(data, torch.Tensor):
        return data.nbytes
    return sum(map(_nbytes, data)) if isinstance(data, list | tuple) else 0


def _elements(item: MappedItem, layout: TensorLayout, row: Sequence[MappedItem]) -> dict[str, MultiModalFieldElem]:
    """What the engine takes of one image of a row."""
    return {
        name: MultiModalFieldElem(data=tensor, field=_field(name, tensor, layout, row))
        for name, tensor in item.tensors.items()
    }


def _field(name: str, tensor: torch.Tensor, layout: TensorLayout, row: Sequence[MappedItem]) -> BaseMultiModalField:
    on_cpu = name in layout.on_cpu
    if name in layout.shared:
        return MultiModalSharedField(batch_size=len(row), keep_on_cpu=on_cpu)
    if name in layout.whole:
        return WholeMaskField(keep_on_cpu=on_cpu)
    is_flat = name in layout.flat
    tiles = max(len(image.tensors[name]) for image in row) if name in layout.padded else 0
    pixels = device_pixels_field(layout, is_flat, on_cpu, tiles) if tensor.dtype == torch.uint8 else None
    if pixels is not None:
        return pixels
    if is_flat:
        return MultiModalFlatField(slices=[slice(0, len(tensor))], keep_on_cpu=on_cpu)
    return _FIELD_ON_CPU if on_cpu else _FIELD


def _count(placeholder: PlaceholderRange) -> MultiModalFieldElem:
    return MultiModalFieldElem(data=torch.tensor(placeholder.num_features), field=_FIELD_ON_CPU)
