"""Gemma 3, and other models on transformers' Gemma3ImageProcessor."""

import numpy as np

from run_batch.model.declaration import Declaration
from run_batch.model.mappers.normalization import normalization_of
from run_batch.model.mappers.patches import filter_of, resize
from run_batch.model.mappers.processor_facts import ProcessorFacts, UnknownSettings
from run_batch.model.mappers.tile_model import declare_tiles
from run_batch.model.mappers.tiles import planes


def declare_gemma3(model_cls: type, facts: ProcessorFacts) -> Declaration:
    """Declare the inputs of a model of this family: the whole image, as one tile.

    Raises:
        UnknownSettings: the image processor does something else with its settings than this mapper does.
    """
    settings = facts.settings
    if settings["do_pan_and_scan"]:
        raise UnknownSettings("do_pan_and_scan is true")
    size, filter = (settings["size"]["height"], settings["size"]["width"]), filter_of(settings)

    def whole(image: np.ndarray) -> np.ndarray:
        return planes(resize(image, size, filter))[None]

    return declare_tiles(model_cls, facts, whole, normalization_of(settings, facts.dtype))
