"""InternVL in transformers' format, and other models on transformers' GotOcr2ImageProcessor."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from run_batch.model.declaration import PIXELS, Declaration, TensorLayout, TokenizedPrompt, array_mapper
from run_batch.model.mappers.normalization import normalization_of
from run_batch.model.mappers.patches import require_bicubic
from run_batch.model.mappers.processor_facts import ProcessorFacts, UnknownSettings
from run_batch.model.mappers.tiles import Tiling, cut_tiles


def declare_internvl(model_cls: type, facts: ProcessorFacts) -> Declaration:
    """Declare the inputs of a model of this family: the tiles of an image, how many they are, and its token.

    Raises:
        UnknownSettings: the image processor does something else with its settings than this mapper does.
    """
    if facts.around_image is None:
        raise UnknownSettings("its processor names no tokens that stand around an image")
    tiling, (start, end) = _tiling(facts.settings), facts.around_image

    @array_mapper
    def map_tiles(context: Any, items: list[np.ndarray]) -> dict[str, torch.Tensor | list[torch.Tensor]]:
        tiles = [torch.from_numpy(cut_tiles(np.ascontiguousarray(item), tiling)) for item in items]
        return {
            "pixel_values": tiles,
            "image_num_patches": torch.tensor([len(its) for its in tiles]),
            "image_token_id": torch.full((len(items),), facts.image_token_id),
        }

    def expand(context: Any, prompts: list[TokenizedPrompt]) -> list[TokenizedPrompt]:
        image = facts.image_token_id

        def run(tiles: int) -> list[int]:
            return [start, *[image] * (tiles * facts.features_per_tile), end]

        return [
            prompt.expand(image, [run(len(item.tensors["pixel_values"])) for item in prompt.items], image)
            for prompt in prompts
        ]

    layout = TensorLayout(
        flat=frozenset({"pixel_values"}),
        on_cpu=frozenset({"image_num_patches", "image_token_id"}),
        shared=frozenset({"image_token_id"}),
        normalization=normalization_of(facts.settings, facts.dtype),
    )
    return Declaration(model_cls, {PIXELS: map_tiles}, expand, layouts={PIXELS: layout})


def _tiling(settings: Mapping[str, Any]) -> Tiling:
    require_bicubic(settings)
    size = (settings["size"]["height"], settings["size"]["width"])
    if not settings["crop_to_patches"]:
        return Tiling(size, 1, 1)
    return Tiling(size, settings["min_patches"], settings["max_patches"])
