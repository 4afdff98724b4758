"""Resizes RGB images to planes, to the values of torch's antialiased kernel for bytes, at up to twice its speed.

torch (UpSampleKernelAVXAntialias.h) resizes the width, then the height. Each new value is a weighted sum of
neighbouring values, in integers, with weights of 16 bits, in a unit that depends on the largest of them. Here,
`weighted_rows` sums whole rows; to resize the width, planes are transposed in strips. What the mappers need are planes,
or tiles of them: they are written where they belong, without a copy of the resized image.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from run_batch.model.images.decode import Size
from run_batch.model.images.resize import FILTERS, check_new_size, round_weights, weights_of
from run_batch.model.mappers.patches import resize

# Of a strip of an image that is transposed: with its result, it fits into a core's cache.
_STRIP_BYTES = 1 << 20
# Of one direction of an image that is resized here, and of one whose weights are kept for the next image of its size.
_MAX_WEIGHTS, _KEPT_WEIGHTS = 1 << 22, 1 << 15
# Of a weight, and of its unit; torch's limits.
_WEIGHT_BITS, _MAX_BITS = 15, 22

_sum_rows: Callable[..., None] | None = None
_lanes = 0


def compile_plane_resize() -> None:
    """Compile the fast way for this process and those forked from it; before, and without AVX2, torch resizes.

    Do not call it in a process that starts vLLM's engine; see `compile_resize`.
    """
    global _sum_rows, _lanes
    from run_batch.model.images.weighted_rows import LANES, compile_sum_rows

    _sum_rows, _lanes = compile_sum_rows(), LANES


def resized_planes(image: np.ndarray, size: Size, filter: str) -> np.ndarray:
    """Resize an image.

    Args:
        image: uint8 (height, width, 3), contiguous.
        size: the new (height, width).
        filter: see `patches.resize`.

    Returns:
        uint8 (3, new height, new width), contiguous.

    Raises:
        RowError: see `patches.resize`.
    """
    check_new_size(image, size)
    planes = np.empty((1, 3, *size), np.uint8)
    resize_to_tiles(image, size, filter, planes)
    return planes[0]


def resize_to_tiles(image: np.ndarray, size: Size, filter: str, tiles: np.ndarray) -> None:
    """Resize an image, and cut it into tiles, row by row.

    Args:
        image, filter: see `resized_planes`.
        size: the new (height, width), multiples of a tile's.
        tiles: uint8 (tiles, 3, tile height, tile width), as many as the new image holds or more; they are overwritten.

    Raises:
        RowError: see `patches.resize`.
    """
    check_new_size(image, size)
    height, width = tiles.shape[2:]
    rows, columns = _direction(image.shape[0], size[0], filter), _direction(image.shape[1], size[1], filter)
    if _sum_rows is None or rows is None or columns is None or min(width, image.shape[0]) < _lanes:
        tile_planes(resize(image, size, filter), (height, width), tiles)
        return
    wide = _resize_width(image, size[1], columns)
    places = [(top, left) for top in range(0, size[0], height) for left in range(0, size[1], width)]
    for (top, left), tile in zip(places, tiles, strict=False):
        for plane, new in zip(wide, tile, strict=True):
            rows.write(plane[:, left : left + width], new, top)


def tile_planes(canvas: np.ndarray, size: Size, tiles: np.ndarray) -> None:
    """Write the channels of a canvas into tiles, row by row.

    Args:
        canvas: uint8 (rows * tile height, columns * tile width, 3), contiguous.
        size: (height, width) of a tile.
        tiles: uint8 (tiles, 3, tile height, tile width), as many as the canvas holds or more.
    """
    (height, width), columns = size, canvas.shape[1] // size[1]
    for tile in range(canvas.shape[0] // height * columns):
        top, left = tile // columns * height, tile % columns * width
        # Of an array that is not contiguous, OpenCV splits each pixel alone: five times as slow.
        planes(np.ascontiguousarray(canvas[top : top + height, left : left + width]), tiles[tile])


def planes(image: np.ndarray, into: np.ndarray | None = None) -> np.ndarray:
    """The channels of an image, uint8 (3, height, width), of uint8 (height, width, 3), contiguous.

    Args:
        into: where they are written; None for new memory.
    """
    channels = np.empty((3, *image.shape[:2]), np.uint8) if into is None else into
    cv2.split(image, list(channels))
    return channels


@dataclass(frozen=True, slots=True)
class _Direction:
    """The resize of one direction.

    Attributes:
        begins, pairs, weights, bits: see `weighted_rows`; None where the length does not change.
    """

    begins: np.ndarray | None
    pairs: np.ndarray
    weights: np.ndarray
    bits: int

    def write(self, rows: np.ndarray, new: np.ndarray, first: int) -> None:
        """Make new rows, from the new row `first` on, of all old ones."""
        end = first + len(new)
        if self.begins is None:
            new[...] = rows[first:end]
            return
        assert _sum_rows is not None
        _sum_rows(rows, new, self.begins[first:end], self.pairs[first:end], self.weights[first:end], self.bits)


def _resize_width(image: np.ndarray, width: int, columns: _Direction) -> np.ndarray:
    """The planes of an image, uint8 (3, height, width), of the new width."""
    height, old_width, _ = image.shape
    planes = np.empty((3, height, width), np.uint8)
    if columns.begins is None:
        cv2.split(image, list(planes))
        return planes
    step = max(_lanes, _STRIP_BYTES // (3 * old_width))
    for begin in range(0, height, step):
        # The last strip overlaps the one before it where it would be too low to be summed.
        strip = slice(max(0, min(begin, height - _lanes)), min(begin + step, height))
        # OpenCV's own new arrays take several times as long.
        wide = np.empty((3, strip.stop - strip.start, old_width), np.uint8)
        cv2.split(image[strip], list(wide))
        turned, narrow = (np.empty((length, wide.shape[1]), np.uint8) for length in (old_width, width))
        for plane, new in zip(wide, planes, strict=True):
            cv2.transpose(plane, turned)
            columns.write(turned, narrow, 0)
            cv2.transpose(narrow, new[strip])
    return planes


def _direction(length: int, new_length: int, filter: str) -> _Direction | None:
    """None where torch has to do it: an unusual filter, few old values, or very many."""
    if length == new_length:
        return _Direction(None, np.empty(0), np.empty(0), 0)
    if filter not in FILTERS or 5 * max(length, new_length) > _MAX_WEIGHTS:
        return None
    few = 5 * max(length, new_length) <= _KEPT_WEIGHTS
    return (_kept_direction if few else _new_direction)(length, new_length, filter)


def _new_direction(length: int, new_length: int, filter: str) -> _Direction | None:
    begins, taps, weights = weights_of(length, new_length, 0, new_length, FILTERS[filter])
    pairs = (taps + 1) // 2
    most = 2 * int(pairs.max())
    if most > length:
        return None
    largest = weights.max()
    bits = next((b for b in range(_MAX_BITS) if int(0.5 + largest * (2 << b)) >= 1 << _WEIGHT_BITS), _MAX_BITS)
    rounded = round_weights(weights, bits).astype(np.int16)
    # An odd number of old values gets one more, of weight 0: before them where there is none after them.
    shifted = np.minimum(begins, length - 2 * pairs)
    even = np.zeros((new_length, most), np.int16)
    for shift in np.unique(begins - shifted):
        its = begins - shifted == shift
        even[its, shift : shift + weights.shape[1]] = rounded[its, : most - shift]
    return _Direction(shifted, pairs, even, bits)


_kept_direction = functools.lru_cache(maxsize=128)(_new_direction)
