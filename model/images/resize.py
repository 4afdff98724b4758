"""Resizes RGB images to the same values as Pillow, at several times its speed, and only the part that is kept.

Pillow (Resample.c) resizes one direction after the other. Each new value is a weighted sum of neighbouring values, in
integers, with weights of 22 bits. Here, code that numba compiles for the machine's CPU sums whole rows, many values at
once; to resize the width, the image is transposed in strips.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from PIL import Image

from run_batch.model.declaration import RowError
from run_batch.model.images.decode import MAX_PIXELS, Size

WEIGHT_BITS = 22
# Of these, the lower ones, by which code that multiplies 16 bits takes a weight apart; see byte_lanes.py.
LOW_BITS = 11
# Values of a row that are summed together.
_BLOCK_VALUES = 4096
# Of a strip that is transposed: with its result, it fits into a core's cache.
_STRIP_BYTES = 1 << 20
# Weights that are computed at a time, and most of them that are cached for the next image of the same size.
_MAX_WEIGHTS, _KEPT_WEIGHTS = 1 << 20, 1 << 16


@dataclass(frozen=True, slots=True)
class Window:
    """A rectangle of an image, in pixels."""

    top: int
    left: int
    height: int
    width: int


@dataclass(frozen=True, slots=True)
class Filter:
    """A resampling filter.

    Attributes:
        support: distance beyond which the weight is 0, in pixels of the smaller of both images.
        weight: function of distances (not negative, float64) to weights (float64).
    """

    support: float
    weight: Callable[[np.ndarray], np.ndarray]


def _bilinear(x: np.ndarray) -> np.ndarray:
    return np.where(x < 1, 1 - x, 0.0)


def _bicubic(x: np.ndarray) -> np.ndarray:
    """Pillow's bicubic filter (a = -0.5), with the same order of operations: the last bit counts."""
    near = (1.5 * x - 2.5) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * -0.5
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


# The filters that checkpoints use, by the names of Pillow and torch; these do any other.
FILTERS = {"bilinear": Filter(1.0, _bilinear), "bicubic": Filter(2.0, _bicubic)}

_compiled: Callable[..., None] | None = None


def compile_resize() -> None:
    """Compile the fast `resize` for this process and those forked from it, in half a second; before, Pillow resizes.

    Do not call it in a process that starts vLLM's engine: on a CPU, vLLM 0.32 then inspects every loaded module, and
    fails on one of numba's.
    """
    global _compiled
    from numba import int32, int64, njit, types, uint8, void

    # Arrays that share memory with a PIL image are read-only.
    rows = types.Array(uint8, 2, "C", readonly=True)
    signature = void(rows, uint8[:, ::1], int64[::1], int64[::1], int32[:, ::1], int64)
    _compiled = njit(signature, nogil=True)(_sum_rows)


def check_new_size(image: np.ndarray, size: Size) -> None:
    """Refuse what would become huge, as a very narrow image may.

    Raises:
        RowError: `image_too_large`, the new (height, width) exceeds the limit on pixels.
    """
    if size[0] * size[1] > MAX_PIXELS:
        raise RowError(
            "image_too_large",
            f"{image.shape[1]} x {image.shape[0]} pixels become {size[1]} x {size[0]} when they are resized; the limit "
            f"is {MAX_PIXELS:,} pixels",
        )


def resize(image: np.ndarray, size: Size, resample: Image.Resampling, window: Window | None = None) -> np.ndarray:
    """Resize one RGB image as Pillow 13 does.

    Args:
        image: uint8 (height, width, 3).
        size: the new (height, width).
        window: the part of the new image to return, wholly inside it; None returns all.

    Returns:
        uint8 (height, width, 3); a view of `image` where it has that size already.

    Raises:
        RowError: `image_too_large`, where the new size exceeds the limit on pixels, as for a very narrow image.
    """
    check_new_size(image, size)
    window = window or Window(0, 0, *size)
    if image.shape[:2] != size:
        filter = FILTERS.get(resample.name.lower())
        if _compiled is not None and filter is not None:
            return _resize(image, size, window, filter)
        image = np.asarray(Image.fromarray(image).resize((size[1], size[0]), resample))
    return image[window.top : window.top + window.height, window.left : window.left + window.width]


def _resize(image: np.ndarray, size: Size, window: Window, filter: Filter) -> np.ndarray:
    rows = _Pass(image.shape[0], size[0], window.top, window.height, filter)
    columns = _Pass(image.shape[1], size[1], window.left, window.width, filter)
    image = image[rows.begin : rows.end, columns.begin : columns.end]
    if resizes_height_first((rows.length, columns.length), size):
        return _resize_width(_resize_height(image, rows), columns)
    return _resize_height(_resize_width(image, columns), rows)


def resizes_height_first(old: Size, new: Size) -> bool:
    """Whether Pillow resizes the height before the width: each pass rounds and clips, so their order matters."""
    return old[0] - new[0] > max(0, 2 * (old[1] - new[1]))


class _Pass:
    """The resize of one direction from `length` to `new_length` pixels, for `count` new pixels from `first` on.

    Attributes:
        begin, end: range of the old pixels that these are made of.
    """

    def __init__(self, length: int, new_length: int, first: int, count: int, filter: Filter) -> None:
        self.length, self.new_length, self.first, self.count, self._filter = length, new_length, first, count, filter
        self.is_needed = length != new_length
        self.taps = 2 * int(np.ceil(filter.support * max(length / new_length, 1.0))) + 1
        self.begin, self.end = first, first + count
        if self.is_needed:
            self.begin = int(_reach(length, new_length, first, 1, filter)[1][0])
            self.end = int(_reach(length, new_length, first + count - 1, 1, filter)[2][0])

    def run(self, rows: np.ndarray) -> np.ndarray:
        """Resize rows, uint8 (end - begin, values), to new rows, uint8 (count, values)."""
        new = np.empty((self.count, rows.shape[1]), np.uint8)
        step = max(1, _MAX_WEIGHTS // self.taps)
        for done in range(0, self.count, step):
            count = min(step, self.count - done)
            make = _kept_weights if count * self.taps <= _KEPT_WEIGHTS else _weights
            begins, taps, weights = make(self.length, self.new_length, self.first + done, count, self._filter)
            assert _compiled is not None
            _compiled(rows, new[done : done + count], begins, taps, weights, self.begin)
        return new


def _reach(length: int, new_length: int, first: int, count: int, filter: Filter) -> tuple[np.ndarray, ...]:
    """Centers of new pixels, in old pixels, and the range (begins, ends) of old pixels that each is made of."""
    scale = length / new_length
    support = filter.support * max(scale, 1.0)
    centers = (np.arange(first, first + count) + 0.5) * scale
    begins = np.maximum((centers - support + 0.5).astype(np.int64), 0)
    ends = np.minimum((centers + support + 0.5).astype(np.int64), length)
    return centers, begins, ends


def weights_of(
    length: int, new_length: int, first: int, count: int, filter: Filter
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The weights of the old pixels that each new pixel is made of (Pillow's precompute_coeffs, and torch's).

    Returns:
        For each new pixel: its first old pixel, int64 (count); how many it has, int64 (count); their weights, float64
        (count, largest number of old pixels).
    """
    centers, begins, ends = _reach(length, new_length, first, count, filter)
    old = begins[:, None] + np.arange((ends - begins).max())
    weights = filter.weight(np.abs((old - centers[:, None] + 0.5) * (1.0 / max(length / new_length, 1.0))))
    weights[old >= ends[:, None]] = 0
    # Added one after the other, as Pillow does: np.sum adds in another order.
    weights /= np.cumsum(weights, axis=1)[:, -1:]
    return begins, ends - begins, weights


def round_weights(weights: np.ndarray, bits: int) -> np.ndarray:
    """Weights in units of 2 ** -bits, the nearest ones, halves away from 0: float64 of the same shape."""
    return np.trunc(weights * (1 << bits) + np.copysign(0.5, weights))


def _weights(
    length: int, new_length: int, first: int, count: int, filter: Filter
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """See `weights_of`; weights are int32, in units of 2 ** -WEIGHT_BITS."""
    begins, taps, weights = weights_of(length, new_length, first, count, filter)
    return begins, taps, round_weights(weights, WEIGHT_BITS).astype(np.int32)


_kept_weights = functools.lru_cache(maxsize=64)(_weights)


def _resize_height(image: np.ndarray, rows: _Pass) -> np.ndarray:
    """Resize (height, width, 3) to (rows.count, width, 3)."""
    if not rows.is_needed:
        return image
    height, width, _ = image.shape
    return rows.run(np.ascontiguousarray(image).reshape(height, width * 3)).reshape(rows.count, width, 3)


def _resize_width(image: np.ndarray, columns: _Pass) -> np.ndarray:
    """Resize (height, width, 3) to (height, columns.count, 3)."""
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
    """Make each new row the weighted sum of `taps` old rows, from `begins` - `offset` on; numba compiles this."""
    for start in range(0, rows.shape[1], _BLOCK_VALUES):
        end = min(start + _BLOCK_VALUES, rows.shape[1])
        total = np.empty(end - start, np.int32)
        for y in range(new.shape[0]):
            total[:] = 1 << (WEIGHT_BITS - 1)
            tap, row = 0, begins[y] - offset
            # Four at a time, so that `total` is read and written a quarter as often.
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
                new_row[i] = min(max(total[i] >> WEIGHT_BITS, 0), 255)
