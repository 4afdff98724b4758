"""Turns RGB images into pixel_values, by the steps of a checkpoint's `preprocessor_config.json`.

The steps are resize, crop, rescale and normalize. Up to the crop, values are uint8. A model may take those: its
PixelNormalizer then does the rest on the model's device, and the worker processes send a quarter of the bytes.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image
from torch import nn

from run_batch.model.declaration import array_mapper
from run_batch.model.images.decode import Size
from run_batch.model.images.mapped_memory import new_pixels
from run_batch.model.images.resize import Window, resize


@dataclass(frozen=True, slots=True)
class PixelSettings:
    """The steps of a CLIP or SigLIP style `preprocessor_config.json`, in order; None leaves a step out.

    Attributes:
        resize: (height, width), or the length of the shortest edge.
        crop: (height, width) of the center crop.
        resample: Pillow's resampling filter.
        scale, shift: per channel; a value v in 0..255 becomes v * scale + shift (rescale and normalize together).
    """

    resize: Size | int | None
    crop: Size | None
    resample: Image.Resampling
    scale: tuple[float, ...]
    shift: tuple[float, ...]

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "PixelSettings":
        """Read the checkpoint's image processor config; missing keys take CLIP's defaults."""
        config = config.get("image_processor", config)
        factor = config.get("rescale_factor", 1 / 255) if config.get("do_rescale", True) else 1.0
        mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
        if config.get("do_normalize", True):
            mean = tuple(config.get("image_mean", (0.48145466, 0.4578275, 0.40821073)))
            std = tuple(config.get("image_std", (0.26862954, 0.26130258, 0.27577711)))
        return cls(
            resize=_size(config.get("size", 224)) if config.get("do_resize", True) else None,
            crop=_crop_size(config.get("crop_size", 224)) if _crops(config) else None,
            resample=Image.Resampling(config.get("resample", Image.Resampling.BICUBIC)),
            scale=tuple(factor / s for s in std),
            shift=tuple(-m / s for m, s in zip(mean, std, strict=True)),
        )

    def resized(self, size: Size) -> Size:
        """(height, width) of an image of `size` after the resize step."""
        if self.resize is None:
            return size
        if isinstance(self.resize, tuple):
            return self.resize
        # transformers' get_resize_output_image_size: the long edge is truncated, not rounded.
        new_long = max(1, int(self.resize * max(size) / min(size)))
        return (new_long, self.resize) if size[0] > size[1] else (self.resize, new_long)


def _crops(config: Mapping[str, Any]) -> bool:
    siglip = str(config.get("image_processor_type", "")).startswith("Siglip")
    return bool(config.get("do_center_crop", not siglip))


def _size(size: Any) -> Size | int:
    if isinstance(size, int):
        return size
    if "shortest_edge" in size:
        return int(size["shortest_edge"])
    return int(size["height"]), int(size["width"])


def _crop_size(size: Any) -> Size:
    return (size, size) if isinstance(size, int) else (int(size["height"]), int(size["width"]))


def resize_and_crop(image: np.ndarray, settings: PixelSettings) -> torch.Tensor:
    """Resize and crop one image.

    Args:
        image: uint8 (height, width, 3).

    Returns:
        uint8 (3, new height, new width).

    Raises:
        RowError: see resize.
    """
    size = settings.resized((image.shape[0], image.shape[1]))
    crop = settings.crop or size
    # The center, padded with black where the crop is larger than the image (transformers' center_crop).
    top, left = (size[0] - crop[0]) // 2, (size[1] - crop[1]) // 2
    kept = Window(max(0, top), max(0, left), min(size[0], crop[0]), min(size[1], crop[1]))
    pixels = resize(image, size, settings.resample, kept)
    if pixels.shape[:2] != crop:
        canvas = np.zeros((*crop, 3), np.uint8)
        canvas[max(0, -top) :, max(0, -left) :][: kept.height, : kept.width] = pixels
        pixels = canvas
    planes = new_pixels(3, *crop)
    # Several times faster than permute and copy, where rows are contiguous.
    cv2.split(np.ascontiguousarray(pixels), list(planes))
    return torch.from_numpy(planes)


class PixelNormalizer(nn.Module):
    """Rescales and normalizes uint8 pixels on their own device: v * scale + shift, in float32.

    Floating point pixels count as normalized, by their mapper, and stay as they are.
    """

    scale: torch.Tensor
    shift: torch.Tensor

    def __init__(self, settings: PixelSettings) -> None:
        super().__init__()
        for name, values in (("scale", settings.scale), ("shift", settings.shift)):
            self.register_buffer(name, torch.tensor(values, dtype=torch.float32).view(3, 1, 1), persistent=False)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Floating point values of the same shape as `pixels`, (..., 3, height, width)."""
        if pixels.is_floating_point():
            return pixels
        return torch.addcmul(self.shift, pixels.to(torch.float32), self.scale)


@array_mapper
def map_image_pixels(context: Any, items: list[np.ndarray]) -> dict[str, torch.Tensor | list[torch.Tensor]]:
    """The default pixel mapper: follows the checkpoint's `preprocessor_config.json`.

    Args:
        items: RGB images, uint8 (height, width, 3), or PIL images in mode RGB.

    Returns:
        `pixel_values`: float32, shape (items, 3, height, width); a list of (3, height, width) where sizes differ.
        Within 1/255 of transformers' CLIPImageProcessor and SiglipImageProcessor before normalization.
    """
    normalize = PixelNormalizer(PixelSettings.from_config(context.get_hf_image_processor_config()))
    pixels = [normalize(p) for p in map_uint8_pixels(context, items)["pixel_values"]]
    return {"pixel_values": torch.stack(pixels) if len({p.shape for p in pixels}) == 1 else pixels}


@array_mapper
def map_uint8_pixels(context: Any, items: list[np.ndarray]) -> dict[str, list[torch.Tensor]]:
    """The default pixel mapper without rescale and normalize, for a model that has a PixelNormalizer.

    Args:
        items: RGB images, uint8 (height, width, 3), or PIL images in mode RGB.

    Returns:
        `pixel_values`: a list of uint8 tensors (3, height, width), not stacked, which would cost a copy.
    """
    settings = PixelSettings.from_config(context.get_hf_image_processor_config())
    return {"pixel_values": [resize_and_crop(np.asarray(item), settings) for item in items]}


def size_after_resize(mapper: Callable[..., Any] | None, context: Any) -> Callable[[Size], Size] | None:
    """The function of (height, width) to the (height, width) that a default pixel mapper resizes to; else None."""
    if mapper not in (map_image_pixels, map_uint8_pixels):
        return None
    return PixelSettings.from_config(context.get_hf_image_processor_config()).resized
