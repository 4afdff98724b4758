"""Encoded bytes to RGB images, and RGB images to pixel_values: the default pixel mapper.

EXIF orientation is applied; transparent pixels are shown on white; 16-bit gray is scaled to 8 bits; of an animation
the first frame counts. These hold on every path into a model.
"""

import io
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError

from run_batch.model.declaration import RowError

# Larger than any camera's picture, small enough that one hostile row cannot take a worker's memory (300 MB as RGB).
MAX_PIXELS = 100_000_000


def decode_image(encoded: bytes) -> Image.Image:
    """Decode one image file to a PIL image in mode RGB, upright.

    Raises:
        RowError: `image_empty`, `image_decode` or `image_too_large`.
    """
    if not encoded:
        raise RowError("image_empty", "the image has no bytes")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = Image.open(io.BytesIO(encoded))
            if image.width * image.height > MAX_PIXELS:
                raise RowError(
                    "image_too_large",
                    f"{image.width} x {image.height} pixels; the limit is {MAX_PIXELS:,} pixels",
                )
            image.load()
            # In place: a copy of an image that is upright already would cost more than decoding it.
            ImageOps.exif_transpose(image, in_place=True)
            return to_rgb(image)
    except RowError:
        raise
    except UnidentifiedImageError:
        raise RowError("image_decode", f"not an image that can be read ({_first_bytes(encoded)})") from None
    except Image.DecompressionBombError as error:
        raise RowError("image_too_large", str(error)) from None
    # Pillow's decoders raise almost anything on damaged files (OSError, SyntaxError, ValueError, struct.error, ...).
    except Exception as error:
        raise RowError("image_decode", f"damaged image: {error}") from None


def _first_bytes(encoded: bytes) -> str:
    return f"{len(encoded)} bytes, starting with {encoded[:16]!r}"


def to_rgb(image: Image.Image) -> Image.Image:
    """Any Pillow mode to RGB, transparent pixels on white."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I;16") or image.mode == "I":
        return Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).clip(0, 255).astype(np.uint8)).convert("RGB")
    if "transparency" in image.info or image.mode in ("RGBA", "LA", "PA", "La", "RGBa"):
        image = image.convert("RGBA")
        background = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(background, image)
    return image.convert("RGB")


@dataclass(frozen=True, slots=True)
class PixelSettings:
    """The steps of a CLIP or SigLIP style `preprocessor_config.json`, in their order; None leaves a step out.

    Attributes:
        resize: (height, width), or the length of the shortest edge.
        crop: (height, width) of the center crop.
        resample: Pillow's resampling filter.
        scale, shift: per channel; a value v in 0..255 becomes v * scale + shift (rescale and normalize in one).
    """

    resize: tuple[int, int] | int | None
    crop: tuple[int, int] | None
    resample: Image.Resampling
    scale: tuple[float, ...]
    shift: tuple[float, ...]

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "PixelSettings":
        """From the checkpoint's image processor config; missing keys take CLIP's defaults."""
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


def _crops(config: Mapping[str, Any]) -> bool:
    siglip = str(config.get("image_processor_type", "")).startswith("Siglip")
    return bool(config.get("do_center_crop", not siglip))


def _size(size: Any) -> tuple[int, int] | int:
    if isinstance(size, int):
        return size
    if "shortest_edge" in size:
        return int(size["shortest_edge"])
    return int(size["height"]), int(size["width"])


def _crop_size(size: Any) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (int(size["height"]), int(size["width"]))


def image_to_pixels(image: Image.Image, settings: PixelSettings) -> np.ndarray:
    """Resize and crop one RGB image.

    Returns:
        uint8 array of shape (height, width, 3).
    """
    if settings.resize is not None:
        image = image.resize(_target_size(image, settings.resize), settings.resample)
    if settings.crop is not None:
        image = _center_crop(image, settings.crop)
    return np.asarray(image)


def _target_size(image: Image.Image, resize: tuple[int, int] | int) -> tuple[int, int]:
    if isinstance(resize, tuple):
        return resize[1], resize[0]
    # transformers' get_resize_output_image_size: the long edge is truncated, not rounded.
    short, long = sorted((image.width, image.height))
    new_long = max(1, int(resize * long / short))
    return (resize, new_long) if image.width <= image.height else (new_long, resize)


def _center_crop(image: Image.Image, crop: tuple[int, int]) -> Image.Image:
    height, width = crop
    left, top = (image.width - width) // 2, (image.height - height) // 2
    # Image.crop pads with black where the crop is larger than the image, as transformers' center_crop does.
    return image.crop((left, top, left + width, top + height))


def normalize_pixels(pixels: list[np.ndarray], settings: PixelSettings) -> torch.Tensor:
    """Rescale and normalize uint8 arrays (height, width, 3) of one size to float32 (arrays, 3, height, width)."""
    scale, shift = (torch.tensor(values).view(3, 1, 1) for values in (settings.scale, settings.shift))
    values = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).to(torch.float32)
    return torch.addcmul(shift, values, scale)


def map_image_pixels(context: Any, items: list[Image.Image]) -> dict[str, torch.Tensor | list[torch.Tensor]]:
    """The default pixel mapper: what the checkpoint's `preprocessor_config.json` says.

    Args:
        items: PIL images in mode RGB.

    Returns:
        `pixel_values`: float32, shape (items, 3, height, width); a list of (3, height, width) where sizes differ.
        Within 1/255 of transformers' CLIPImageProcessor and SiglipImageProcessor before normalization.
    """
    settings = PixelSettings.from_config(context.get_hf_image_processor_config())
    pixels = [image_to_pixels(item, settings) for item in items]
    if len({p.shape for p in pixels}) == 1:
        return {"pixel_values": normalize_pixels(pixels, settings)}
    return {"pixel_values": [normalize_pixels([p], settings)[0] for p in pixels]}
