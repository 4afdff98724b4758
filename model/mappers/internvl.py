"""InternVL in transformers' format, and other models on transformers' GotOcr2ImageProcessor."""

from collections.abc import Mapping
from typing import Any

from run_batch.model.declaration import Declaration
from run_batch.model.mappers.normalization import normalization_of
from run_batch.model.mappers.patches import filter_of
from run_batch.model.mappers.processor_facts import ProcessorFacts
from run_batch.model.mappers.tile_model import declare_tiles
from run_batch.model.mappers.tiles import Tiling, cut_tiles


def declare_internvl(model_cls: type, facts: ProcessorFacts) -> Declaration:
    """Declare the inputs of a model of this family: the tiles of an image, how many they are, and its token.

    Raises:
        UnknownSettings: the image processor does something else with its settings than this mapper does.
    """
    tiling = _tiling(facts.settings)
    normalization = normalization_of(facts.settings, facts.dtype)
    return declare_tiles(
        model_cls,
        facts,
        lambda image: cut_tiles(image, tiling),
        normalization,
        count="image_num_patches",
        token="image_token_id",
    )


def _tiling(settings: Mapping[str, Any]) -> Tiling:
    size = (settings["size"]["height"], settings["size"]["width"])
    if not settings["crop_to_patches"]:
        return Tiling(size, 1, 1, filter_of(settings))
    return Tiling(size, settings["min_patches"], settings["max_patches"], filter_of(settings))
