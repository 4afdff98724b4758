"""The declaration of a model that takes the tiles of all its images in a row: InternVL, Gemma 3, Idefics3, SmolVLM.

Families differ in how they cut an image, and in the names of the tensors.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from run_batch.model.declaration import PIXELS, Declaration, Normalization, TensorLayout, array_mapper
from run_batch.model.mappers.processor_facts import ProcessorFacts


def declare_tiles(
    model_cls: type,
    facts: ProcessorFacts,
    cut: Callable[[np.ndarray], np.ndarray],
    normalization: Normalization | None,
    *,
    pixels: str = "pixel_values",
    count: str = "num_patches",
    mask: str | None = None,
    token: str | None = None,
) -> Declaration:
    """Declare a model's inputs.

    Args:
        cut: the tiles of an image: of uint8 (height, width, 3), contiguous, uint8 (tiles, 3, height, width).
        normalization: of the pixels, on the device.
        pixels, count: names of the tensors of an image's tiles, and of their number.
        mask: name of the mask of the tiles' pixels, in models that take one; tiles have no padding.
        token: name of the tensor of the image token's id, in models that take that.
    """

    @array_mapper
    def map_tiles(context: Any, items: list[np.ndarray]) -> dict[str, torch.Tensor | list[torch.Tensor]]:
        tiles = [torch.from_numpy(cut(np.ascontiguousarray(item))) for item in items]
        tensors: dict[str, torch.Tensor | list[torch.Tensor]] = {pixels: tiles}
        tensors[count] = torch.tensor([len(its) for its in tiles])
        if mask is not None:
            tensors[mask] = [its.new_empty((len(its), 0, *its.shape[2:])) for its in tiles]
        if token is not None:
            tensors[token] = torch.full((len(items),), facts.image_token_id)
        return tensors

    layout = TensorLayout(
        flat=frozenset({pixels}),
        on_cpu=frozenset(name for name in (count, token) if name is not None),
        shared=frozenset(() if token is None else (token,)),
        whole=frozenset(() if mask is None else (mask,)),
        normalization=normalization,
    )
    return Declaration(model_cls, {PIXELS: map_tiles}, facts.expand, layouts={PIXELS: layout})
