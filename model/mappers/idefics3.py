"""Idefics3, SmolVLM and other models on their image processors in transformers."""

import math
from collections.abc import Callable

import numpy as np

from run_batch.model.declaration import Declaration
from run_batch.model.images.decode import Size
from run_batch.model.images.mapped_memory import new_pixels
from run_batch.model.mappers.normalization import normalization_of
from run_batch.model.mappers.patches import filter_of, resize
from run_batch.model.mappers.plane_resize import planes, resize_to_tiles, resized_planes, tile_planes
from run_batch.model.mappers.processor_facts import ProcessorFacts, UnknownSettings
from run_batch.model.mappers.tile_model import declare_tiles

# Of the longer side of an image; transformers makes larger ones smaller again.
_LONGEST = 4096


def declare_idefics3(model_cls: type, facts: ProcessorFacts) -> Declaration:
    """Declare the inputs of a model of this family: tiles in rows, then the whole image, or that alone.

    Raises:
        UnknownSettings: the image processor does something else with its settings than this mapper does.
    """
    settings, filter = facts.settings, filter_of(facts.settings)
    longest, side = settings["size"]["longest_edge"], settings["max_image_size"]["longest_edge"]
    if not settings["do_pad"]:
        raise UnknownSettings("do_pad is false")
    if not longest or longest > _LONGEST:
        raise UnknownSettings(f"size is {settings['size']}")
    if settings["do_image_splitting"]:
        cut = _splitting(longest, side, filter)
    else:

        def cut(image: np.ndarray) -> np.ndarray:
            fitted = resize(image, _fitted(image.shape[:2], longest), filter)  # type: ignore[arg-type]
            return resized_planes(fitted, (side, side), filter)[None]

    normalization = normalization_of(settings, facts.dtype)
    return declare_tiles(model_cls, facts, cut, normalization, mask="pixel_attention_mask")


def _splitting(longest: int, side: int, filter: str) -> Callable[[np.ndarray], np.ndarray]:
    """What cuts an image into tiles; see declare_tiles."""
    # Of an odd side, transformers may count other tiles than it cuts.
    if longest % side or side % 2:
        raise UnknownSettings(f"size is {longest}, in tiles of {side}")

    def cut(image: np.ndarray) -> np.ndarray:
        image = resize(image, _fitted(image.shape[:2], longest), filter)  # type: ignore[arg-type]
        rows, columns = _tiles(image.shape[:2], side)  # type: ignore[arg-type]
        canvas = resize(image, (rows * side, columns * side), filter)
        if rows * columns == 1:
            return planes(canvas)[None]
        tiles = new_pixels(rows * columns + 1, 3, side, side)
        tile_planes(canvas, (side, side), tiles)
        resize_to_tiles(canvas, (side, side), filter, tiles[-1:])
        return tiles

    return cut


def _fitted(size: Size, longest: int) -> Size:
    """The (height, width) of which the longer one is `longest`, and the other one even."""
    height, width = size
    if width >= height:
        shorter = int(longest / (width / height))
        return max(shorter + shorter % 2, 1), longest
    shorter = int(longest * (width / height))
    return longest, max(shorter + shorter % 2, 1)


def _tiles(size: Size, side: int) -> Size:
    """(rows, columns) of tiles that hold an image of (height, width)."""
    (height, width), ratio = size, size[1] / size[0]
    if width >= height:
        columns = math.ceil(width / side)
        return math.ceil(int(columns * side / ratio) / side), columns
    rows = math.ceil(height / side)
    return rows, math.ceil(int(rows * side * ratio) / side)
