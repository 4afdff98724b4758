"""Pillow's resize of RGB images, value for value, at several times its speed, and of the part alone that is kept.

Pillow (its Resample.c) resizes one direction after the other; each new value is a weighted sum of neighbouring values,
in integers, with weights of 22 bits. Here whole rows are summed, many values at once, by code that numba compiles for
the CPU that it runs on; columns are transposed to be rows, strip by strip.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from PIL import Image

from run_batch.model.declaration import RowError
from run_batch.model.images.decode import MAX_PIXELS

Size = tuple[int, int]

_WEIGHT_BITS = 22
# Values of a row that are summed at once.
_BLOCK_VALUES = 4096
# Of a strip that is transposed: it and what becomes of it fit into a core's cache.
_STRIP_BYTES = 1 << 20
# Weights that are made at once, whatever an image's shape, and those that are kept for the next image of this size.
_MAX_WEIGHTS, _KEPT_WEIGHTS = 1 << 20, 1 << 16


@dataclass(frozen=True, slots=True)
class Window:
    """A part of an image, in pixels."""

    top: int
    left: int
    height: int
    width: int


@dataclass(frozen=True, slots=True)
class _Filter:
    """Attributes:
    support: distance from which on the weight is 0, in pixels of the smaller of both images.
    weight: of distances, which are not negative; float64 to float64.
    """

    support: float
    weight: Callable[[np.ndarray], np.ndarray]


def _bilinear(x: np.ndarray) -> np.ndarray:
    return np.where(x < 1, 1 - x, 0.0)


def _bicubic(x: np.ndarray) -> np.ndarray:
    """Pillow's, with a = -0.5, operation for operation: the last bit counts."""
    near = (1.5 * x - 2.5) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * -0.5
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


# Those that checkpoints ask for. Any other is left to Pillow.
_FILTERS = {Image.Resampling.BILINEAR: _Filter(1.0, _bilinear), Image.Resampling.BICUBIC: _Filter(2.0, _bicubic)}

_compiled: Callable[..., None] | None = None


def compile_resize() -> None:
    """Have `resize` be fast in this process and those forked from it; until then, it is Pillow. Takes half a second.

    Not for a process that is to start vLLM's engine: on a CPU, vLLM 0.32 then looks into every module that is
    loaded, and fails on one that numba brings.
    """
    global _compiled
    from numba import int32, int64, njit, types, uint8, void

    # Arrays that Pillow lends are read-only.
    rows = types.Array(uint8, 2, "C", readonly=True)
    signature = void(rows, uint8[:, ::1], int64[::1], int64[::1], int32[:, ::1], int64)
    _compiled = njit(signature, nogil=True)(_sum_rows)


def resize(image: np.ndarray, size: Size, resample: Image.Resampling, window: Window | None = None) -> np.ndarray:
    """Resize one RGB image as Pillow 13 does.

    Args:
        image: uint8 (height, width, 3).
        size: the new (height, width).
        window: what of the new image is wanted, wholly inside; without it, all.

    Returns:
        uint8 (height, width, 3); a view of `image` where it has that size already.

    Raises:
        RowError: `image_too_large`, for a long and narrow image that would become larger than images may be.
    """
    if size[0] * size[1] > MAX_PIXELS:
        raise RowError(
            "image_too_large",
            f"{image.shape[1]} x {image.shape[0]} pixels become {size[1]} x {size[0]} when they are resized; the limit "
            f"is {MAX_PIXELS:,} pixels",
        )
    window = window or Window(0, 0, *size)
    if image.shape[:2] != size:
        if _compiled is not None and resample in _FILTERS:
            return _resize(image, size, window, _FILTERS[resample])
        image = np.asarray(Image.fromarray(image).resize((size[1], size[0]), resample))
    return image[window.top : window.top + window.height, window.left : window.left + window.width]


def _resize(image: np.ndarray, size: Size, window: Window, filter: _Filter) -> np.ndarray:
    rows = _Pass(image.shape[0], size[0], window.top, window.height, filter)
    columns = _Pass(image.shape[1], size[1], window.left, window.width, filter)
    image = image[rows.begin : rows.end, columns.begin : columns.end]
    # Each pass rounds and clips, so their order shows.
    less_height, less_width = rows.length - rows.new_length, columns.length - columns.new_length
    if less_height > max(0, 2 * less_width):
        return _resize_width(_resize_height(image, rows), columns)
    return _resize_height(_resize_width(image, columns), rows)


class _Pass:
    """One direction: new pixels `first` to `first + count` of `new_length`, from `length` ones.

    Attributes:
        begin, end: the pixels that they are made of.
    """

    def __init__(self, length: int, new_length: int, first: int, count: int, filter: _Filter) -> None:
        self.length, self.new_length, self.first, self.count, self._filter = length, new_length, first, count, filter
        self.is_needed = length != new_length
        self.taps = 2 * int(np.ceil(filter.support * max(length / new_length, 1.0))) + 1
        self.begin, self.end = first, first + count
        if self.is_needed:
            self.begin = int(_reach(length, new_length, first, 1, filter)[1][0])
            self.end = int(_reach(length, new_length, first + count - 1, 1, filter)[2][0])

    def run(self, rows: np.ndarray) -> np.ndarray:
        """Sum up rows, uint8 (end - begin, values), to new ones, uint8 (count, values)."""
        new = np.empty((self.count, rows.shape[1]), np.uint8)
        step = max(1, _MAX_WEIGHTS // self.taps)
        for done in range(0, self.count, step):
            count = min(step, self.count - done)
            make = _kept_weights if count * self.taps <= _KEPT_WEIGHTS else _weights
            begins, taps, weights = make(self.length, self.new_length, self.first + done, count, self._filter)
            assert _compiled is not None
            _compiled(rows, new[done : done + count], begins, taps, weights, self.begin)
        return new


def _reach(length: int, new_length: int, first: int, count: int, filter: _Filter) -> tuple[np.ndarray, ...]:
    """Centers of new pixels, in old ones, and the old ones (from, to) that each is made of."""
    scale = length / new_length
    support = filter.support * max(scale, 1.0)
    centers = (np.arange(first, first + count) + 0.5) * scale
    begins = np.maximum((centers - support + 0.5).astype(np.int64), 0)
    ends = np.minimum((centers + support + 0.5).astype(np.int64), length)
    return centers, begins, ends


def _weights(
    length: int, new_length: int, first: int, count: int, filter: _Filter
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of new pixels: the old ones that each begins with, how many, and their weights (Pillow's precompute_coeffs).

    Returns:
        int64 (count), int64 (count), int32 (count, most of them).
    """
    centers, begins, ends = _reach(length, new_length, first, count, filter)
    old = begins[:, None] + np.arange((ends - begins).max())
    weights = filter.weight(np.abs((old - centers[:, None] + 0.5) * (1.0 / max(length / new_length, 1.0))))
    weights[old >= ends[:, None]] = 0
    # One after the other, as Pillow adds them: np.sum would add them in another order.
    weights /= np.cumsum(weights, axis=1)[:, -1:]
    rounded = np.trunc(weights * (1 << _WEIGHT_BITS) + np.copysign(0.5, weights)).astype(np.int32)
    return begins, ends - begins, rounded


_kept_weights = functools.lru_cache(maxsize=64)(_weights)


def _resize_height(image: np.ndarray, rows: _Pass) -> np.ndarray:
    """(height, width, 3) to (rows.count, width, 3)."""
    if not rows.is_needed:
        return image
    height, width, _ = image.shape
    return rows.run(np.ascontiguousarray(image).reshape(height, width * 3)).reshape(rows.count, width, 3)


def _resize_width(image: np.ndarray, columns: _Pass) -> np.ndarray:
    """(height, width, 3) to (height, columns.count, 3)."""
    if not columns.is_needed:
        return image
    height, width, _ = image.shape
    narrow = np.empty((height, columns.count, 3), np.uint8)
    step = max(1, _STRIP_BYTES // (3 * width))
    for begin in range(0, height, step):
        strip = cv2.transpose(image[begin : begin + step])
        resized = columns.run(strip.reshape(width, -1)).reshape(columns.count, -1, 3)
        cv2.transpose(resized, narrow[begin : begin + step])
    return narrow


def _sum_rows(rows: Any, new: Any, begins: Any, taps: Any, weights: Any, offset: int) -> None:
    """Each new row is the sum of old ones, `taps` of them from `begins` - `offset` on, by their weights."""
    for start in range(0, rows.shape[1], _BLOCK_VALUES):
        end = min(start + _BLOCK_VALUES, rows.shape[1])
        total = np.empty(end - start, np.int32)
        for y in range(new.shape[0]):
            total[:] = 1 << (_WEIGHT_BITS - 1)
            tap, row = 0, begins[y] - offset
            # Four at a time: a quarter of the way through memory.
            while tap + 3 < taps[y]:
                old_0, old_1 = rows[row + tap][start:end], rows[row + tap + 1][start:end]
                old_2, old_3 = rows[row + tap + 2][start:end], rows[row + tap + 3][start:end]
                weight_0, weight_1 = weights[y, tap], weights[y, tap + 1]
                weight_2, weight_3 = weights[y, tap + 2], weights[y, tap + 3]
                for i in range(end - start):
                    total[i] += (
                        weight_0 * np.int32(old_0[i])
                        + weight_1 * np.int32(old_1[i])
                        + weight_2 * np.int32(old_2[i])
                        + weight_3 * np.int32(old_3[i])
                    )
                tap += 4
            while tap < taps[y]:
                old_0, weight_0 = rows[row + tap][start:end], weights[y, tap]
                for i in range(end - start):
                    total[i] += weight_0 * np.int32(old_0[i])
                tap += 1
            new_row = new[y][start:end]
            for i in range(end - start):
                new_row[i] = min(max(total[i] >> _WEIGHT_BITS, 0), 255)
