"""LLaVA-NeXT (1.6) on the declared-model API, with a number of image tokens that depends on the image's size.

An image becomes one overview and several tiles (anyres). After the tower, the tiles' features are joined to one map,
padding is removed from it, and a newline embedding ends each of its rows.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn
from transformers import CLIPVisionConfig
from transformers.image_processing_utils import select_best_resolution
from vllm.config import VllmConfig
from vllm.multimodal.processing import InputProcessingContext

from run_batch.model.declaration import DeclarationError, DummyData, TokenizedPrompt, array_mapper
from run_batch.model.families.llava import LlavaForConditionalGeneration, precomputed_size
from run_batch.model.images.decode import Size
from run_batch.model.images.pixels import PixelSettings, resize_and_crop
from run_batch.model.images.resize import resize
from run_batch.model.registry import INPUT_REGISTRY, MULTIMODAL_REGISTRY


def fitted_size(image_size: Size, target: Size) -> Size:
    """The (height, width) of an image scaled to fit into `target` (transformers' get_patch_output_size)."""
    scale_height, scale_width = target[0] / image_size[0], target[1] / image_size[1]
    if scale_width < scale_height:
        return min(math.ceil(image_size[0] * scale_width), target[0]), target[1]
    return target[0], min(math.ceil(image_size[1] * scale_height), target[1])


def cut_tiles(image: np.ndarray, pinpoints: list[Size], tile: int, resample: Image.Resampling) -> list[np.ndarray]:
    """Cut an image into tiles, row by row (transformers' LlavaNextImageProcessor.get_image_patches).

    Args:
        image: uint8 (height, width, 3).
        pinpoints: resolutions (height, width) that an image may be fitted into, of which the best is taken.
        tile: edge of a tile in pixels.

    Returns:
        uint8 arrays of shape (tile, tile, 3).
    """
    size = (image.shape[0], image.shape[1])
    best = select_best_resolution(size, pinpoints)
    height, width = fitted_size(size, best)
    top, left = (best[0] - height) // 2, (best[1] - width) // 2
    canvas = np.zeros((*best, 3), np.uint8)
    canvas[top : top + height, left : left + width] = resize(image, (height, width), resample)
    return [
        canvas[top : top + tile, left : left + tile]
        for top in range(0, best[0], tile)
        for left in range(0, best[1], tile)
    ]


@array_mapper
def map_tiles(context: InputProcessingContext, items: list[np.ndarray]) -> dict[str, list[torch.Tensor]]:
    """The pixel mapper: turns each image into an overview and tiles.

    Args:
        items: RGB images, uint8 (height, width, 3).

    Returns:
        `pixel_values`: per image uint8 (1 + tiles, 3, edge, edge), where the overview (the whole image, resized without
        regard to its aspect ratio) comes first; `image_sizes`: per image int64 (height, width).

    Raises:
        DeclarationError: the checkpoint's image processor does not resize.
    """
    settings = PixelSettings.from_config(context.get_hf_image_processor_config())
    pinpoints = [(height, width) for height, width in context.get_hf_config().image_grid_pinpoints]
    overview = (settings.resize, settings.resize) if isinstance(settings.resize, int) else settings.resize
    if overview is None:
        raise DeclarationError("preprocessor_config.json has do_resize = false; LLaVA-NeXT cannot do without it")
    tile = settings.crop[0] if settings.crop else overview[0]
    pixel_values = []
    for item in items:
        tiles = [resize(item, overview, settings.resample), *cut_tiles(item, pinpoints, tile, settings.resample)]
        pixel_values.append(torch.stack([resize_and_crop(t, settings) for t in tiles]))
    return {"pixel_values": pixel_values, "image_sizes": [torch.tensor(item.shape[:2]) for item in items]}


def feature_map_size(config: Any, image_size: Size) -> tuple[int, int, Size]:
    """The grid of an image's tiles, and the size of the map of their features without padding.

    Args:
        image_size: (height, width) of the image in pixels.

    Returns:
        Tiles down, tiles across, and the (height, width) of the map without padding, in features; as in transformers'
        LlavaNextProcessor._get_unpadded_features.
    """
    tile, side = config.vision_config.image_size, config.vision_config.image_size // config.vision_config.patch_size
    best = select_best_resolution(image_size, [tuple(p) for p in config.image_grid_pinpoints])
    down, across = best[0] // tile, best[1] // tile
    height, width = side * down, side * across
    if image_size[1] / image_size[0] > width / height:
        kept = int(round(image_size[0] * (width / image_size[1]), 7))
        height -= (height - kept) // 2 * 2
    else:
        kept = int(round(image_size[1] * (height / image_size[0]), 7))
        width -= (width - kept) // 2 * 2
    return down, across, (height, width)


def image_feature_size(config: Any, image_size: Size) -> int:
    """Number of features of an image of (height, width) pixels: overview, map, and one newline per row of the map."""
    side = config.vision_config.image_size // config.vision_config.patch_size
    _, _, (height, width) = feature_map_size(config, image_size)
    return side * side + height * width + height


def expand_image_tokens(context: InputProcessingContext, prompts: list[TokenizedPrompt]) -> list[TokenizedPrompt]:
    """The input processor: repeats each placeholder token as often as its image has features."""
    config = context.get_hf_config()
    image_token_id = config.image_token_index
    expanded = []
    for prompt in prompts:
        sizes = [
            precomputed_size(item.tensors) or image_feature_size(config, (item.height, item.width))
            for item in prompt.items
        ]
        expanded.append(prompt.expand(image_token_id, [[image_token_id] * size for size in sizes]))
    return expanded


def dummy_tiles(context: InputProcessingContext, seq_len: int, mm_counts: Mapping[str, int]) -> DummyData:
    """The dummy data: images that fill the resolution with the most features, so that there is no padding to remove."""
    config = context.get_hf_config()
    sizes = [(height, width) for height, width in config.image_grid_pinpoints]
    height, width = max(sizes, key=lambda size: image_feature_size(config, size))
    count = mm_counts.get("image", 0)
    return DummyData([config.image_token_index] * count, [Image.new("RGB", (width, height))] * count)


@MULTIMODAL_REGISTRY.register_image_feature_input_mapper()
@MULTIMODAL_REGISTRY.register_image_pixel_input_mapper(map_tiles)
@INPUT_REGISTRY.register_dummy_data(dummy_tiles)
@INPUT_REGISTRY.register_input_processor(expand_image_tokens)
class LlavaNextForConditionalGeneration(LlavaForConditionalGeneration):
    """LLaVA-NeXT; in float32, greedy decoding gives the tokens of transformers' LlavaNextForConditionalGeneration."""

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        super().__init__(vllm_config=vllm_config, prefix=prefix)
        config = self.config
        has_class_embedding = isinstance(config.vision_config, CLIPVisionConfig)
        if has_class_embedding != (config.vision_feature_select_strategy == "default"):
            raise DeclarationError(
                f"vision_feature_select_strategy {config.vision_feature_select_strategy!r} with a "
                f"{config.vision_config.model_type} tower does not leave one feature per patch; LLaVA-NeXT takes "
                "'default' with CLIP and 'full' with SigLIP"
            )
        self.image_newline = nn.Parameter(torch.empty(config.text_config.hidden_size))

    @property
    def most_tiles(self) -> int:
        """Tiles of an image at most, with the overview."""
        side = self.config.vision_config.image_size
        return 1 + max((height // side) * (width // side) for height, width in self.config.image_grid_pinpoints)

    def embed_multimodal(self, **kwargs: Any) -> Any:
        """Features of a batch of images, a list with (features, hidden size) for each image."""
        if "pixel_values" not in kwargs:
            return super().embed_multimodal(**kwargs)
        tiles, sizes = list(kwargs["pixel_values"]), kwargs["image_sizes"]
        features = self.image_features(torch.cat(tiles)).split([len(t) for t in tiles])
        return [self._pack(f, (int(s[0]), int(s[1]))) for f, s in zip(features, sizes, strict=True)]

    def _pack(self, features: torch.Tensor, image_size: Size) -> torch.Tensor:
        """Join the tiles of one image, (1 + tiles, patches, hidden size), to its features (features, hidden size)."""
        side = self.config.vision_config.image_size // self.config.vision_config.patch_size
        down, across, (height, width) = feature_map_size(self.config, image_size)
        whole = features[1:].view(down, across, side, side, -1).permute(0, 2, 1, 3, 4)
        whole = whole.reshape(down * side, across * side, -1)
        top, left = (down * side - height) // 2, (across * side - width) // 2
        unpadded = whole[top : top + height, left : left + width]
        newlines = self.image_newline.to(unpadded.dtype).expand(height, 1, -1)
        return torch.cat((features[0], torch.cat((unpadded, newlines), dim=1).flatten(0, 1)))
