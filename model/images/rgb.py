"""Converts images of every Pillow mode to RGB with 8 bits per channel, as a viewer shows them."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
from PIL import Image

from run_batch.model.declaration import RowError

_WITH_ALPHA = ("RGBA", "LA", "PA", "La", "RGBa")
_TIFF_BITS, _TIFF_PHOTOMETRIC, _TIFF_SAMPLE_FORMAT = 258, 262, 339
_WHITE_IS_ZERO, _UNSIGNED = 0, 1
# Pixels that are converted at a time, so that temporary images stay small.
_STRIP_PIXELS = 1 << 20


def rgb_pixels(image: Image.Image) -> np.ndarray:
    """The pixels of an image as RGB, uint8 (height, width, 3): transparent ones are white, deep gray has 8 bits.

    They are converted in strips: besides the image as Pillow holds it, only what is returned takes memory.

    Gray of 9 to 16 bits has a range by its format, and all of it becomes 0 to 255. Signed gray, and gray of 32 bits
    (integer or floating point), has none: values that are all within 0..1 or 0..255 are on that scale; any others are
    spread linearly, the lowest to black and the highest to white. What is not finite is black.

    Raises:
        RowError: `image_decode`, for floating point gray without a finite value.
    """
    image.load()
    pixels = np.empty((image.height, image.width, 3), np.uint8)
    convert = _deep_gray(image) if image.mode.startswith("I;16") or image.mode in ("I", "F") else _to_rgb
    for rows in _strips(image.size):
        strip = image.crop((0, rows.start, image.width, rows.stop))
        pixels[rows] = np.asarray(convert(strip))
    return pixels


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if "transparency" in image.info or image.mode in _WITH_ALPHA:
        # Pillow converts premultiplied gray to RGBA only by way of LA.
        image = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
        background = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(background, image)
    return image.convert("RGB")


def _deep_gray(image: Image.Image) -> Callable[[Image.Image], np.ndarray]:
    """What converts a strip of an image in mode I;16, I or F to gray values, uint8 (height, width, 1)."""
    tags: Any = getattr(image, "tag_v2", {})
    bits = tags.get(_TIFF_BITS, (16,))[0]
    is_unsigned = image.mode == "I" and bits == 32 and tags.get(_TIFF_SAMPLE_FORMAT, (_UNSIGNED,))[0] == _UNSIGNED

    def values_of(strip: Image.Image) -> np.ndarray:
        values = np.asarray(strip)
        return values.view(np.uint32) if is_unsigned else values  # Pillow has no mode for them

    # Pillow scales PGM files of more than 8 bits to 16, in mode I.
    is_scaled = image.mode.startswith("I;16") or (image.mode == "I" and getattr(image, "format", None) == "PPM")
    scale = None
    if not is_scaled:
        boxes = ((0, rows.start, image.width, rows.stop) for rows in _strips(image.size))
        scale = _scale(values_of(image.crop(box)) for box in boxes)

    def convert(strip: Image.Image) -> np.ndarray:
        values = values_of(strip)
        if scale is None:
            gray = (values.astype(np.uint32) >> (bits - 8)).clip(0, 255).astype(np.uint8)
        else:
            gray = _spread(values, *scale)
        if tags.get(_TIFF_PHOTOMETRIC) == _WHITE_IS_ZERO:
            gray = 255 - gray
        if "transparency" in image.info:
            gray[values == image.info["transparency"]] = 255
        return gray[..., None]

    return convert


def _spread(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Gray values of any range as uint8 of the same shape."""
    # In double precision, 32-bit integers and their differences are exact.
    spread = (values.astype(np.float64) - low) * (255 / (high - low))
    return np.nan_to_num(spread, nan=0, posinf=0, neginf=0).round().astype(np.uint8)


def _scale(strips: Iterable[np.ndarray]) -> tuple[float, float]:
    """The values that are shown as black and as white."""
    ranges = [(strip.min(), strip.max()) for strip in map(_finite, strips) if strip.size]
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


def _strips(size: tuple[int, int]) -> Iterator[slice]:
    """The rows of an image of (width, height), a strip at a time."""
    width, height = size
    rows = max(1, _STRIP_PIXELS // width)
    return (slice(top, min(height, top + rows)) for top in range(0, height, rows))
