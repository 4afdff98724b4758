"""Resizes RGB images to planes, tiles or patches, to the values of torch's antialiased kernel for bytes, or of Pillow.

torch (UpSampleKernelAVXAntialias.h) resizes the width, then the height. Each new value is a weighted sum of
neighbouring values, in integers. Here, `weighted_rows` makes these sums, at several times torch's speed, and writes
what the mappers need where it belongs, without a copy of the resized image.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image

from run_batch.model.images.decode import Size
from run_batch.model.images.resize import check_new_size, resizes_height_first
from run_batch.model.images.resize import resize as resize_as_pillow
from run_batch.model.mappers.patches import PatchGrid, cut_patches, resize
from run_batch.model.mappers.resize_weights import Rounding, as_pillow, as_torch, direction

_is_allowed = False


def allow_plane_resize() -> None:
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
def _compiled(dimensions: int) -> _Compiled | None:
    """See `compile_tile_resize`; takes half a second at first."""
    from run_batch.model.images.byte_lanes import COLUMNS, FEW, LANES
    from run_batch.model.images.weighted_rows import compile_tile_resize

    both = compile_tile_resize(dimensions)
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
    if not _resize_fast(image, size, filter, tiles):
        tile_planes(resize(image, size, filter), tiles.shape[2:], tiles)  # type: ignore[arg-type]


def resize_to_tiles_as_pillow(image: np.ndarray, size: Size, filter: str, tiles: np.ndarray) -> None:
    """Resize an image as Pillow does, and cut it into tiles; see `resize_to_tiles`."""
    check_new_size(image, size)
    if resizes_height_first(image.shape[:2], size) or not _resize_fast(image, size, filter, tiles, as_pillow):  # type: ignore[arg-type]
        resized = resize_as_pillow(image, size, Image.Resampling[filter.upper()])
        tile_planes(np.ascontiguousarray(resized), tiles.shape[2:], tiles)  # type: ignore[arg-type]


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
    if not _resize_fast(image, size, filter, tiles, merged=grid.merge_size):
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


def _resize_fast(
    image: np.ndarray, size: Size, filter: str, tiles: np.ndarray, rounding: Rounding = as_torch, merged: int = 1
) -> bool:
    """Resize an image to tiles, in rows of squares of `merged` times `merged` of them; False where it is left as is."""
    if not _is_allowed:
        return False
    height, width, _ = image.shape
    rows, columns = (direction(*both, filter, rounding) for both in zip((height, width), size, strict=True))
    if rows is None or columns is None or (compiled := _compiled(rows.weights.ndim)) is None:
        return False
    if min(height, size[1]) < compiled.lanes or 3 * width < compiled.columns or tiles.shape[3] < compiled.few:
        return False
    # The compiled code does not check where it writes.
    assert tiles.size >= 3 * size[0] * size[1], (tiles.shape, size)
    planes, line = np.empty((3, height, size[1]), np.uint8), np.empty(size[1], np.uint8)
    strip = np.empty(compiled.lanes * (3 * width + compiled.lanes), np.uint8)
    compiled.resize_width(image.reshape(height, 3 * width), *columns, planes, strip)
    compiled.resize_height(planes, *rows, line, tiles, merged)
    return True
