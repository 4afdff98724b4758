"""What the mappers of patch models are built of: the size that an image gets, its resize, its patches.

Each function gives what transformers' image processors on torchvision give, to the last bit, without torchvision:
that calls the same kernel of torch.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from run_batch.model.declaration import RowError
from run_batch.model.images.decode import Size
from run_batch.model.images.resize import check_new_size
from run_batch.model.mappers.processor_facts import UnknownSettings

# As Pillow numbers them, and as torchvision and torch name them.
_FILTERS = {1: "lanczos", 2: "bilinear", 3: "bicubic"}
# Of the longer to the shorter side; transformers refuses more.
_MAX_ASPECT_RATIO = 200


@dataclass(frozen=True, slots=True)
class PatchGrid:
    """How an image is cut into patches.

    Attributes:
        patch_size: height and width of a patch in pixels.
        merge_size: patches in a row, and in a column, whose features the model merges into one token.
        frames: how often the model takes each patch: a model of videos takes patches of several frames.
    """

    patch_size: int
    merge_size: int
    frames: int

    @property
    def unit(self) -> int:
        """Pixels that both sides of an image are a multiple of."""
        return self.patch_size * self.merge_size


def filter_of(settings: Mapping[str, Any]) -> str:
    """The filter by which an image processor resizes, as `resize` takes it.

    Raises:
        UnknownSettings: it does not resize at all, or by a filter that `resize` does not know.
    """
    if not settings["do_resize"]:
        raise UnknownSettings("do_resize is false")
    resample = getattr(settings["resample"], "value", settings["resample"])
    name = _FILTERS.get(resample, resample)
    if name not in _FILTERS.values():
        raise UnknownSettings(f"resample is {settings['resample']}; known are {', '.join(_FILTERS.values())}")
    return str(name)


def smart_resize(size: Size, unit: int, min_pixels: int, max_pixels: int, frames: int = 1) -> Size:
    """The (height, width) that Qwen's models give an image: multiples of `unit`, about its shape, within both limits.

    Args:
        size: (height, width) of the image.
        min_pixels, max_pixels: limits of height times width times frames.

    Raises:
        RowError: `image_processing`, an image more than 200 times as long as wide, or as wide as long.
    """
    height, width = size
    check_aspect_ratio(height, width)
    new_height, new_width = round(height / unit) * unit, round(width / unit) * unit
    if frames * new_height * new_width > max_pixels:
        shrink = math.sqrt((frames * height * width) / max_pixels)
        new_height = max(unit, math.floor(height / shrink / unit) * unit)
        new_width = max(unit, math.floor(width / shrink / unit) * unit)
    elif frames * new_height * new_width < min_pixels:
        stretch = math.sqrt(min_pixels / (frames * height * width))
        new_height = math.ceil(height * stretch / unit) * unit
        new_width = math.ceil(width * stretch / unit) * unit
    return new_height, new_width


def check_aspect_ratio(height: int, width: int) -> None:
    """Refuse what transformers refuses.

    Raises:
        RowError: `image_processing`, one side is more than 200 times as long as the other.
    """
    ratio = max(height, width) / min(height, width)
    if ratio > _MAX_ASPECT_RATIO:
        message = f"ValueError: absolute aspect ratio must be smaller than {_MAX_ASPECT_RATIO}, got {ratio}"
        raise RowError("image_processing", message)


def resize(image: np.ndarray, size: Size, filter: str) -> np.ndarray:
    """Resize an image by torch's antialiased kernel for bytes.

    Args:
        image: uint8 (height, width, 3), contiguous.
        size: the new (height, width).
        filter: `bilinear`, `bicubic` or `lanczos`.

    Returns:
        uint8 (height, width, 3), contiguous; `image` itself where it has that size.

    Raises:
        RowError: `image_too_large`, the new size exceeds the limit on pixels.
    """
    if image.shape[:2] == size:
        return image
    check_new_size(image, size)
    height, width, channels = image.shape
    # With these strides torch sees that channels come last, and takes the kernel that leaves them there: twice as fast.
    strides = (image.size, 1, width * channels, channels)
    pixels = torch.from_numpy(image).as_strided((1, channels, height, width), strides)
    resized = functional.interpolate(pixels, size, mode=filter, antialias=True, align_corners=False)
    return np.ascontiguousarray(resized[0].permute(1, 2, 0).numpy())


def cut_patches(planes: np.ndarray, grid: PatchGrid, patches: np.ndarray) -> None:
    """Cut an image into patches, in the order in which the model merges them.

    Args:
        planes: uint8 (3, height, width), contiguous; both sides are multiples of the grid's unit.
        patches: uint8 (patches, 3 * patch_size * patch_size), contiguous: one frame of each patch is written there.
    """
    size, merged = grid.patch_size, grid.merge_size
    rows, columns = planes.shape[1] // grid.unit, planes.shape[2] // grid.unit
    # A line of a patch is copied as one value of so many bytes: several times as fast as byte by byte.
    line = np.dtype(f"V{size}")
    lines = planes.view(line).reshape(3, rows, merged, size, columns, merged).transpose(1, 4, 2, 5, 0, 3)
    patches.view(line).reshape(rows, columns, merged, merged, 3, size)[...] = lines
