"""The form in which vLLM's engine takes a rendered row."""

from typing import Any, TypeAlias

import torch
from vllm.inputs.engine import MultiModalInput, TokensInput, mm_input, tokens_input
from vllm.multimodal.inputs import (
    MultiModalBatchedField,
    MultiModalFieldElem,
    MultiModalKwargsItem,
    MultiModalKwargsItems,
)
from vllm.multimodal.inputs import PlaceholderRange as VllmPlaceholderRange

from run_batch.model.declaration import MappedItem, PlaceholderRange, TokenizedPrompt
from run_batch.model.rendering.feature_counts import FEATURE_COUNTS

EngineInput: TypeAlias = MultiModalInput | TokensInput

_FIELD, _FIELD_ON_CPU = MultiModalBatchedField(), MultiModalBatchedField(keep_on_cpu=True)


def engine_input(prompt: TokenizedPrompt) -> EngineInput:
    """Build what `LLMEngine.add_request` takes from one expanded prompt."""
    if not prompt.items:
        return tokens_input(prompt.prompt_token_ids)
    return mm_input(
        prompt_token_ids=prompt.prompt_token_ids,
        mm_kwargs=MultiModalKwargsItems(
            {"image": [_kwargs_item(*pair) for pair in zip(prompt.items, prompt.placeholders, strict=True)]}
        ),
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


def _kwargs_item(item: MappedItem, placeholder: PlaceholderRange) -> MultiModalKwargsItem:
    elements = {name: MultiModalFieldElem(data=tensor, field=_FIELD) for name, tensor in item.tensors.items()}
    count = torch.tensor(placeholder.num_features)
    elements[FEATURE_COUNTS] = MultiModalFieldElem(data=count, field=_FIELD_ON_CPU)
    return MultiModalKwargsItem(elements)
