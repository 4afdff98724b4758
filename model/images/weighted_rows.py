"""Resizes RGB images to tiles by weighted sums of columns, then of rows, as code that numba compiles for AVX2.

To sum columns, strips of rows are transposed: many rows are summed at a time. A row of sums is copied to the tiles at
once, while it is in the processor's cache. numba is imported here and in `byte_lanes` alone: see `plane_resize`.
"""

from collections.abc import Callable
from typing import Any

from numba import int16, int64, njit, types, uint8, void

from run_batch.model.images.byte_lanes import (
    CACHE_LINE,
    COLUMNS,
    FEW,
    LANES,
    copy_few,
    copy_lanes,
    fetch,
    has_lanes,
    sum_lanes,
    transpose_block,
)


def compile_tile_resize(dimensions: int) -> tuple[Callable[..., None], Callable[..., None]] | None:
    """Compile `_resize_width` and `_resize_height` for this process; None where the processor has no AVX2.

    Args:
        dimensions: of the weights that they will be called with, 2 or 3; see `sum_lanes`.
    """
    if not has_lanes():
        return None
    # Arrays that share memory with bytes are read-only.
    image, planes = types.Array(uint8, 2, "C", readonly=True), uint8[:, :, ::1]
    direction = (int64[::1], int64[::1], types.Array(int16, dimensions, "C"), int64)
    width = void(image, *direction, planes, uint8[::1])
    height = void(planes, *direction, uint8[::1], uint8[:, :, :, ::1], int64)
    return _compile(width, _resize_width), _compile(height, _resize_height)


def _compile(signature: Any, function: Callable[..., None]) -> Callable[..., None]:
    # Nothing here divides by zero, or is called by C: half the time that it takes to compile.
    return njit(signature, nogil=True, error_model="numpy", no_cfunc_wrapper=True)(function)  # type: ignore[no-any-return]


def _resize_width(image: Any, begins: Any, pairs: Any, weights: Any, bits: int, planes: Any, strip: Any) -> None:
    """Make planes of a new width.

    Args:
        image: uint8 (height, 3 * old width), at least `LANES` rows, and `COLUMNS` values in each.
        begins: int64, for each new column, its first old one.
        pairs: int64, half the number of old columns, all of which exist.
        weights, bits: see `sum_lanes`.
        planes: uint8 (3, height, new width), at least `LANES` wide.
        strip: uint8 (`LANES` * (3 * old width + `LANES`)), for what lies between.
    """
    (height, values), width, most = image.shape, planes.shape[2], weights.size // len(weights)
    block = LANES * values
    for y in range(0, height, LANES):
        # The last strip, or block, overlaps the one before it where there are no more rows, or values.
        top = min(y, height - LANES)
        for x in range(0, values, COLUMNS):
            at = min(x, values - COLUMNS)
            transpose_block(image, top * values + at, values, strip, at * LANES, LANES)
        for channel in range(3):
            for x in range(0, width, LANES):
                left = min(x, width - LANES)
                for new in range(LANES):
                    column = left + new
                    first, target = (3 * begins[column] + channel) * LANES, block + new * LANES
                    sum_lanes(strip, first, 3 * LANES, pairs[column], weights, column * most, bits, strip, target)
                for half in range(0, LANES, COLUMNS):
                    row = channel * height + top + half
                    transpose_block(strip, block + half, LANES, planes, row * width + left, width)


def _resize_height(
    planes: Any, begins: Any, pairs: Any, weights: Any, bits: int, line: Any, tiles: Any, merged: int
) -> None:
    """Make tiles of planes of a new height.

    Args:
        planes: uint8 (3, old height, width), at least `LANES` wide.
        begins, pairs, weights, bits: see `_resize_width`.
        line: uint8 (width), for what lies between.
        tiles: uint8 (tiles, 3, tile height, tile width), at least `FEW` wide.
        merged: the tiles are those of squares, in rows, of so many times so many tiles, in rows themselves.
    """
    (_, height, width), (_, _, tile_height, tile_width) = planes.shape, tiles.shape
    tile, across, square = 3 * tile_height * tile_width, width // tile_width, merged * merged
    most = weights.size // len(weights)
    for row in range(len(begins) // tile_height * 3 * tile_height):
        first_tile, y = row // (3 * tile_height), row % (3 * tile_height)
        new = first_tile * tile_height + y % tile_height
        source = (y // tile_height * height + begins[new]) * width
        for x in range(0, width, LANES):
            at = min(x, width - LANES)
            sum_lanes(planes, source + at, width, pairs[new], weights, new * most, bits, line, at)
        if tile_width < LANES:
            # The processor does not foresee where so short lines are written: this fetches the next row of squares.
            for x in range(0, width, CACHE_LINE):
                fetch(tiles, (row + 3 * tile_height * merged) * width + x)
        target = (first_tile // merged * across + first_tile % merged) * merged * tile + y * tile_width
        left = 0
        for _ in range(across // merged):
            for beside in range(merged):
                place = target + beside * tile
                if tile_width < LANES:
                    for x in range(0, tile_width, FEW):
                        at = min(x, tile_width - FEW)
                        copy_few(line, left + at, tiles, place + at)
                else:
                    for x in range(0, tile_width, LANES):
                        at = min(x, tile_width - LANES)
                        copy_lanes(line, left + at, tiles, place + at)
                left += tile_width
            target += square * tile
