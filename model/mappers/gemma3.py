"""Gemma 3, and other models on transformers' Gemma3ImageProcessor."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from run_batch.model.declaration import Declaration
from run_batch.model.images.decode import Size
from run_batch.model.images.mapped_memory import new_pixels
from run_batch.model.mappers.normalization import normalization_of
from run_batch.model.mappers.patches import filter_of
from run_batch.model.mappers.plane_resize import resize_to_tiles
from run_batch.model.mappers.processor_facts import ProcessorFacts, UnknownSettings
from run_batch.model.mappers.tile_model import declare_tiles


@dataclass(frozen=True, slots=True)
class _Crops:
    """How a long image is cropped: into parts of equal length along its longer side, but for the last one.

    Attributes:
        least_side: in pixels, of a crop.
        most: number of crops.
        least_ratio: of the longer to the shorter side; of a less long image there are no crops.
    """

    least_side: int
    most: int
    least_ratio: float

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> "_Crops | None":
        """None where the image processor does not crop."""
        if not settings["do_pan_and_scan"]:
            return None
        crops = cls(*(settings[f"pan_and_scan_{name}"] for name in _NAMES))
        # The last one of so small crops may have no pixels.
        if crops.least_side < crops.most:
            raise UnknownSettings(f"pan_and_scan_min_crop_size is {crops.least_side}")
        return crops

    def length(self, size: Size) -> int:
        """Of a crop along the longer side of an image of (height, width), in pixels; 0 for no crops."""
        shorter, longer = min(size), max(size)
        if longer / shorter < self.least_ratio:
            return 0
        wanted = min(longer // self.least_side, math.floor(longer / shorter + 0.5))
        length = math.ceil(longer / min(self.most, max(2, wanted)))
        return 0 if min(length, shorter) < self.least_side else length


_NAMES = ("min_crop_size", "max_num_crops", "min_ratio_to_activate")


def declare_gemma3(model_cls: type, facts: ProcessorFacts) -> Declaration:
    """Declare the inputs of a model of this family: the whole image, as one tile, and with pan and scan its crops.

    Raises:
        UnknownSettings: the image processor does something else with its settings than this mapper does.
    """
    settings = facts.settings
    crops = _Crops.of(settings)
    size, filter = (settings["size"]["height"], settings["size"]["width"]), filter_of(settings)

    def cut(image: np.ndarray) -> np.ndarray:
        parts = [image, *(_parts(image, crops) if crops else ())]
        tiles = new_pixels(len(parts), 3, *size)
        for number, part in enumerate(parts):
            resize_to_tiles(np.ascontiguousarray(part), size, filter, tiles[number : number + 1])
        return tiles

    return declare_tiles(model_cls, facts, cut, normalization_of(settings, facts.dtype))


def _parts(image: np.ndarray, crops: _Crops) -> list[np.ndarray]:
    """The crops of an image, (height, width, 3), from the left or from the top."""
    height, width = image.shape[:2]
    length = crops.length((height, width))
    if not length:
        return []
    if width >= height:
        return [image[:, start : start + length] for start in range(0, width, length)]
    return [image[start : start + length] for start in range(0, height, length)]
