"""Converts images of every Pillow mode to RGB with 8 bits per channel, as a viewer shows them."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image

from run_batch.model.declaration import RowError

_WITH_ALPHA = ("RGBA", "LA", "PA", "La", "RGBa")
_TIFF_BITS, _TIFF_PHOTOMETRIC, _TIFF_SAMPLE_FORMAT = 258, 262, 339
_WHITE_IS_ZERO, _UNSIGNED = 0, 1
# Values of a deep gray image that are converted at a time, so that temporary arrays stay small.
_STRIP_VALUES = 1 << 20


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert an image to RGB: transparent pixels become white, and deep gray is scaled to 8 bits.

    Gray of 9 to 16 bits has a range by its format, and all of it becomes 0 to 255. Signed gray, and gray of 32 bits
    (integer or floating point), has none: values that are all within 0..1 or 0..255 are on that scale; any others are
    spread linearly, the lowest to black and the highest to white. What is not finite is black.

    Raises:
        RowError: `image_decode`, for floating point gray without a finite value.
    """
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        return _from_deep_gray(image).convert("RGB")
    if "transparency" in image.info or image.mode in _WITH_ALPHA:
        # Pillow converts premultiplied gray to RGBA only by way of LA.
        image = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
        background = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(background, image)
    return image.convert("RGB")


def _from_deep_gray(image: Image.Image) -> Image.Image:
    """An image in mode L, from one in mode I;16, I or F."""
    values = np.asarray(image)
    tags: Any = getattr(image, "tag_v2", {})
    bits = tags.get(_TIFF_BITS, (16,))[0]
    if image.mode == "I" and bits == 32 and tags.get(_TIFF_SAMPLE_FORMAT, (_UNSIGNED,))[0] == _UNSIGNED:
        values = values.view(np.uint32)  # Pillow has no mode for them
    # Pillow scales PGM files of more than 8 bits to 16, in mode I.
    if image.mode.startswith("I;16") or (image.mode == "I" and getattr(image, "format", None) == "PPM"):
        gray = (values.astype(np.uint32) >> (bits - 8)).clip(0, 255).astype(np.uint8)
    else:
        gray = _spread(values)
    if tags.get(_TIFF_PHOTOMETRIC) == _WHITE_IS_ZERO:
        gray = 255 - gray
    if "transparency" in image.info:
        gray[values == image.info["transparency"]] = 255
    return Image.fromarray(gray)


def _spread(values: np.ndarray) -> np.ndarray:
    """Gray values of any range as uint8 of the same shape; see to_rgb."""
    low, high = _scale(values)
    gray = np.empty(values.shape, np.uint8)
    for rows in _strips(values):
        # In double precision, 32-bit integers and their differences are exact.
        strip = (values[rows].astype(np.float64) - low) * (255 / (high - low))
        gray[rows] = np.nan_to_num(strip, nan=0, posinf=0, neginf=0).round()
    return gray


def _scale(values: np.ndarray) -> tuple[float, float]:
    """The values that are shown as black and as white."""
    ranges = [(strip.min(), strip.max()) for strip in map(_finite, (values[r] for r in _strips(values))) if strip.size]
    if not ranges:
        raise RowError("image_decode", "none of the image's values is a finite number")
    low, high = float(min(r[0] for r in ranges)), float(max(r[1] for r in ranges))
    if low >= 0:
        for white in (1.0, 255.0):
            if high <= white:
                return 0.0, white
    # One value alone has no contrast: medium gray.
    return (low, high) if low < high else (low - 1, high + 1)


def _finite(values: np.ndarray) -> np.ndarray:
    return values[np.isfinite(values)]


def _strips(values: np.ndarray) -> Iterator[slice]:
    height = max(1, _STRIP_VALUES // values.shape[1])
    return (slice(top, top + height) for top in range(0, values.shape[0], height))
