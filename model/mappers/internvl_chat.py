"""InternVL in its own format, as OpenGVLab's checkpoints are, on vLLM's image processor for it."""

import functools

import numpy as np

from run_batch.model.declaration import Declaration, Normalization
from run_batch.model.images.mapped_memory import new_pixels
from run_batch.model.mappers.plane_resize import resize_to_tiles_as_pillow
from run_batch.model.mappers.processor_facts import ProcessorFacts
from run_batch.model.mappers.tile_model import declare_tiles


def declare_internvl_chat(model_cls: type, facts: ProcessorFacts) -> Declaration:
    """Declare the inputs of a model of this family: tiles, resized as Pillow does, then the image as small as a tile.

    Raises:
        UnknownSettings: the image processor has other settings than this mapper reads.
    """
    # It needs torchvision, which is there where a model of this family is.
    from vllm.transformers_utils.processors import internvl as vllms

    settings = facts.settings
    side, has_thumbnail = settings["image_size"], settings["use_thumbnail"]
    least, most = vllms.resolve_internvl_min_max_num(
        min_dynamic_patch=settings["min_dynamic_patch"],
        max_dynamic_patch=settings["max_dynamic_patch"],
        dynamic_image_size=settings["dynamic_image_size"],
        use_thumbnail=False,
    )
    ratios = vllms.get_internvl_target_ratios(least, most)

    @functools.lru_cache(maxsize=1024)
    def targets(height: int, width: int) -> tuple[int, int, int]:
        """How many tiles an image has, and the width and height of all together."""
        return vllms.calculate_internvl_targets(
            orig_width=width, orig_height=height, target_ratios=ratios, image_size=side, use_thumbnail=False
        )

    def cut(image: np.ndarray) -> np.ndarray:
        count, width, height = targets(*image.shape[:2])
        tiles = new_pixels(count + (has_thumbnail and count > 1), 3, side, side)
        resize_to_tiles_as_pillow(image, (height, width), "bicubic", tiles)
        if len(tiles) > count:
            resize_to_tiles_as_pillow(image, (side, side), "bicubic", tiles[-1:])
        return tiles

    normalization = Normalization(_as_float32(vllms.IMAGENET_MEAN), _as_float32(vllms.IMAGENET_STD), 255.0, facts.dtype)
    return declare_tiles(
        model_cls,
        facts,
        cut,
        normalization,
        pixels="pixel_values_flat",
        count="image_num_patches",
        token="image_token_id",
    )


def _as_float32(values: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(np.asarray(values, np.float32).tolist())
