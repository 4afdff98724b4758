"""LLaVA-OneVision, and other models on transformers' LlavaOnevisionImageProcessor."""

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers.image_processing_utils import select_best_resolution

from run_batch.model.declaration import PIXELS, Declaration, TensorLayout, array_mapper
from run_batch.model.images.decode import Size
from run_batch.model.images.mapped_memory import new_pixels
from run_batch.model.mappers.normalization import normalization_of
from run_batch.model.mappers.patches import filter_of, resize
from run_batch.model.mappers.plane_resize import resize_to_tiles, tile_planes
from run_batch.model.mappers.processor_facts import ProcessorFacts, UnknownSettings


@dataclass(frozen=True, slots=True)
class _Canvases:
    """How an image is cut into tiles.

    Attributes:
        side: height and width of a tile.
        sizes: (height, width) of the canvases of which an image takes the one that fits best.
        filter: see `resize`.
    """

    side: int
    sizes: Sequence[Size]
    filter: str

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> "_Canvases":
        side, sizes = settings["size"]["height"], [tuple(size) for size in settings["image_grid_pinpoints"]]
        if settings["do_center_crop"] or side != settings["size"]["width"]:
            raise UnknownSettings(f"do_center_crop is true, or size is {settings['size']}")
        if any(length % side for size in sizes for length in size):
            raise UnknownSettings(f"image_grid_pinpoints are no multiples of {side}")
        return cls(side, sizes, filter_of(settings))


def declare_llava_onevision(model_cls: type, facts: ProcessorFacts) -> Declaration:
    """Declare the inputs of a model of this family: the whole image, then its tiles; and its size.

    Raises:
        UnknownSettings: the image processor does something else with its settings than this mapper does.
    """
    canvases = _Canvases.of(facts.settings)
    canvas_of = functools.lru_cache(maxsize=1024)(lambda size: select_best_resolution(size, canvases.sizes))

    @array_mapper
    def map_tiles(context: Any, items: list[np.ndarray]) -> dict[str, torch.Tensor | list[torch.Tensor]]:
        tiles = [_cut(np.ascontiguousarray(item), canvas_of(item.shape[:2]), canvases) for item in items]
        return {
            "pixel_values": [torch.from_numpy(its) for its in tiles],
            "image_sizes": torch.tensor([item.shape[:2] for item in items]),
        }

    layout = TensorLayout(
        on_cpu=frozenset({"image_sizes"}),
        normalization=normalization_of(facts.settings, facts.dtype),
        padded=frozenset({"pixel_values"}),
    )
    # Without padding, transformers fails on images of different numbers of tiles.
    most = None if facts.settings["do_pad"] else 1
    return Declaration(model_cls, {PIXELS: map_tiles}, facts.expand, layouts={PIXELS: layout}, most_images=most)


def _cut(image: np.ndarray, size: Size, canvases: _Canvases) -> np.ndarray:
    """The tiles of an image, uint8 (tiles, 3, side, side), the whole image first.

    Args:
        image: uint8 (height, width, 3), contiguous.
        size: (height, width) of the canvas in whose middle it is put.
    """
    side = canvases.side
    fitted = resize(image, _fitted(image.shape[:2], size), canvases.filter)  # type: ignore[arg-type]
    canvas = np.zeros((*size, 3), np.uint8)
    top, left = (size[0] - fitted.shape[0]) // 2, (size[1] - fitted.shape[1]) // 2
    canvas[top : top + fitted.shape[0], left : left + fitted.shape[1]] = fitted
    tiles = new_pixels(1 + size[0] // side * (size[1] // side), 3, side, side)
    resize_to_tiles(image, (side, side), canvases.filter, tiles[:1])
    tile_planes(canvas, (side, side), tiles[1:])
    return tiles


def _fitted(size: Size, canvas: Size) -> Size:
    """The (height, width) of an image that fills a canvas in one direction."""
    (height, width), scale = size, (canvas[0] / size[0], canvas[1] / size[1])
    if scale[1] < scale[0]:
        return min(math.ceil(height * scale[1]), canvas[0]), canvas[1]
    return canvas[0], min(math.ceil(width * scale[0]), canvas[1])
