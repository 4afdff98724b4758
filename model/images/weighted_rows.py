"""Resizes RGB images to tiles by weighted sums of columns and rows, as code that numba compiles for AVX2.

A strip of `LANES` rows is transposed, so that its columns are summed many rows at a time, and turned back into rows of
planes. Rows of these are summed as soon as a row of tiles has all that it needs, and written where they belong: what is
read was written shortly before. numba is imported here and in `byte_lanes` alone: see `compile_plane_resize`.
"""

from collections.abc import Callable
from typing import Any

from numba import int16, int64, njit, types, uint8, void

from run_batch.model.images.byte_lanes import (
    COLUMNS,
    LANES,
    copy_line,
    has_lanes,
    sum_lanes,
    transpose_block,
)


def compile_tile_resize() -> Callable[..., None] | None:
    """Compile `_resize_to_tiles` for this process; None where the processor has no AVX2."""
    if not has_lanes():
        return None
    # Arrays that share memory with bytes are read-only.
    image = types.Array(uint8, 2, "C", readonly=True)
    direction = types.Tuple((int64[::1], int64[::1], int16[:, ::1], int64))
    signature = void(image, direction, direction, uint8[:, :, ::1], uint8[::1], uint8[:, :, :, ::1], int64)
    return njit(signature, nogil=True)(_resize_to_tiles)  # type: ignore[no-any-return]


def _resize_to_tiles(image: Any, columns: Any, rows: Any, wide: Any, strip: Any, tiles: Any, merged: int) -> None:
    """Resize an image, and cut it into tiles.

    Args:
        image: uint8 (old height, 3 * old width), at least `LANES` rows, and `COLUMNS` values in each.
        columns, rows: the resize of the width and of the height, each as a tuple: for each new one, its first old one,
            int64; half the number of old ones, all of which exist, int64; their weights, int16 (new, 2 * most pairs),
            in units of 2 ** -bits; and bits.
        wide: uint8 (3, old height, new width), at least `LANES` columns; it is overwritten.
        strip: uint8 (`LANES` * 3 * old width or more, new width or more); it is overwritten.
        tiles: uint8 (tiles, 3, tile height, tile width), at least `SHORTEST_LINE` wide.
        merged: the tiles are in rows of squares of so many times so many tiles, each in rows itself.
    """
    begins, pairs, _, _ = rows
    height, tile_height, done = image.shape[0], tiles.shape[2], 0
    for first in range(0, len(begins), tile_height):
        last = first + tile_height - 1
        # An old row that is there to make pairs, of weight 0, may follow those of the last new row.
        while done < min(begins[last] + 2 * pairs[last] + 1, height):
            # The last strip overlaps the one before it where it would be too low.
            _resize_strip(image, min(done, height - LANES), columns, wide, strip)
            done += LANES
        _sum_to_tiles(wide, rows, first, strip, tiles, merged)


@njit(nogil=True)  # type: ignore[untyped-decorator]
def _resize_strip(image: Any, top: int, columns: Any, wide: Any, strip: Any) -> None:
    """Resize the width of `LANES` rows of an image, from `top` on."""
    begins, pairs, weights, bits = columns
    (height, values), width, most = image.shape, wide.shape[2], weights.shape[1]
    block = strip[values * LANES :]
    for x in range(0, values, COLUMNS):
        # The last block overlaps the one before it where the values are no multiple.
        at = min(x, values - COLUMNS)
        transpose_block(image, top * values + at, values, strip, at * LANES, LANES)
    for channel in range(3):
        for x in range(0, width, LANES):
            left = min(x, width - LANES)
            for new in range(LANES):
                column = left + new
                first, its = (3 * begins[column] + channel) * LANES, column * most
                sum_lanes(strip, first, 3 * LANES, pairs[column], weights, its, bits, block, new * LANES)
            target = (channel * height + top) * width + left
            for half in range(0, LANES, COLUMNS):
                transpose_block(block, half, LANES, wide, target + half * width, width)


@njit(nogil=True)  # type: ignore[untyped-decorator]
def _sum_to_tiles(wide: Any, rows: Any, first: int, line: Any, tiles: Any, merged: int) -> None:
    """Fill a row of tiles, whose first row of pixels is the new row `first`."""
    height, width = wide.shape[1:]
    tile_height, tile_width = tiles.shape[2:]
    tile, across, square = 3 * tile_height * tile_width, width // tile_width, merged * merged
    row = first // tile_height
    first_tile = (row // merged) * merged * across + (row % merged) * merged
    for channel in range(3):
        for y in range(tile_height):
            source = channel * height * width
            target = first_tile * tile + (channel * tile_height + y) * tile_width
            if tile_width < LANES:
                _sum_row(wide, source, width, width, rows, first + y, line, 0)
            left = 0
            for _ in range(across // merged):
                for beside in range(merged):
                    place = target + beside * tile
                    if tile_width < LANES:
                        copy_line(line, left, tiles, place, tile_width)
                    else:
                        _sum_row(wide, source + left, width, tile_width, rows, first + y, tiles, place)
                    left += tile_width
                target += square * tile


@njit(nogil=True)  # type: ignore[untyped-decorator]
def _sum_row(old: Any, first: int, stride: int, values: int, rows: Any, row: int, new: Any, target: int) -> None:
    """Make a new row of so many values of old rows, of which byte `first` begins the first one."""
    begins, pairs, weights, bits = rows
    first += begins[row] * stride
    for x in range(0, values, LANES):
        at = min(x, values - LANES)
        sum_lanes(old, first + at, stride, pairs[row], weights, row * weights.shape[1], bits, new, target + at)
