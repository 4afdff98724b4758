"""Resizes RGB images to planes, tiles or patches, to the values of torch's antialiased kernel for bytes.

torch (UpSampleKernelAVXAntialias.h) resizes the width, then the height. Each new value is a weighted sum of
neighbouring values, in integers, with weights of 16 bits, in a unit that depends on the largest of them. Here,
`weighted_rows` makes these sums, at several times torch's speed, and writes what the mappers need where it belongs,
without a copy of the resized image.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np

from run_batch.model.images.decode import Size
from run_batch.model.images.resize import FILTERS, check_new_size, round_weights, weights_of
from run_batch.model.mappers.patches import PatchGrid, cut_patches, resize

# Of one direction of an image that is resized here, and of one whose weights are kept for the next image of its size.
_MAX_WEIGHTS, _KEPT_WEIGHTS = 1 << 22, 1 << 15
# Of a weight, and of its unit; torch's limits.
_WEIGHT_BITS, _MAX_BITS = 15, 22


_is_allowed = False


def compile_plane_resize() -> None:
    """Let this process and those forked from it compile the fast way once it is needed; before, torch resizes.

    Do not call it in a process that starts vLLM's engine; see `compile_resize`.
    """
    global _is_allowed
    _is_allowed = True


class _Compiled(NamedTuple):
    """`weighted_rows`, compiled.

    Attributes:
        resize_width, resize_height: see there.
        lanes, columns, few: see `byte_lanes`.
    """

    resize_width: Callable[..., None]
    resize_height: Callable[..., None]
    lanes: int
    columns: int
    few: int


@functools.cache
def _compiled() -> _Compiled | None:
    """Takes half a second at first; None where the processor has no AVX2."""
    from run_batch.model.images.byte_lanes import COLUMNS, FEW, LANES
    from run_batch.model.images.weighted_rows import compile_tile_resize

    both = compile_tile_resize()
    return None if both is None else _Compiled(*both, LANES, COLUMNS, FEW)


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
        tiles: uint8 (tiles, 3, tile height, tile width), contiguous, as many as the new image holds or more; they are
            overwritten.

    Raises:
        RowError: see `patches.resize`.
    """
    check_new_size(image, size)
    if not _resize_fast(image, size, filter, tiles, 1):
        tile_planes(resize(image, size, filter), tiles.shape[2:], tiles)  # type: ignore[arg-type]


def resize_to_patches(image: np.ndarray, size: Size, filter: str, grid: PatchGrid, patches: np.ndarray) -> None:
    """Resize an image, and cut it into patches.

    Args:
        image, filter: see `resized_planes`.
        size: the new (height, width), multiples of the grid's unit.
        patches: see `cut_patches`; they are overwritten.

    Raises:
        RowError: see `patches.resize`.
    """
    check_new_size(image, size)
    # Patches are small tiles, in another order.
    tiles = patches.reshape(-1, 3, grid.patch_size, grid.patch_size)
    if not _resize_fast(image, size, filter, tiles, grid.merge_size):
        cut_patches(planes(resize(image, size, filter)), grid, patches)


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


class _Direction(NamedTuple):
    """The resize of one direction; see `weighted_rows`."""

    begins: np.ndarray
    pairs: np.ndarray
    weights: np.ndarray
    bits: int


def _resize_fast(image: np.ndarray, size: Size, filter: str, tiles: np.ndarray, merged: int) -> bool:
    """Resize an image to tiles, in rows of squares of `merged` times `merged` of them; False where torch has to."""
    compiled = _compiled() if _is_allowed else None
    (height, width, _), (_, _, _, tile_width) = image.shape, tiles.shape
    if compiled is None or min(height, size[1]) < compiled.lanes:
        return False
    if 3 * width < compiled.columns or tile_width < compiled.few:
        return False
    rows, columns = _direction(height, size[0], filter), _direction(width, size[1], filter)
    if rows is None or columns is None:
        return False
    planes, line = np.empty((3, height, size[1]), np.uint8), np.empty(size[1], np.uint8)
    strip = np.empty(compiled.lanes * (3 * width + compiled.lanes), np.uint8)
    compiled.resize_width(image.reshape(height, 3 * width), *columns, planes, strip)
    compiled.resize_height(planes, *rows, line, tiles, merged)
    return True


def _direction(length: int, new_length: int, filter: str) -> _Direction | None:
    """None where torch has to do it: an unusual filter, few old values, or very many."""
    if length == new_length:
        # It takes each old value once, and its neighbour with weight 0.
        filter = "bilinear"
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
