"""What the mappers of tile models are built of: how many tiles an image gets, and the tiles themselves."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from run_batch.model.images.decode import Size
from run_batch.model.images.mapped_memory import new_pixels
from run_batch.model.mappers.plane_resize import resize_to_tiles


@dataclass(frozen=True, slots=True)
class Tiling:
    """How an image is cut into tiles.

    Attributes:
        size: (height, width) of a tile.
        least, most: limits of the number of tiles, without the thumbnail; both 1 for the image alone.
        filter: see `resize`.
    """

    size: Size
    least: int
    most: int
    filter: str


@lru_cache(maxsize=1024)
def tiles_of(size: Size, tiling: Tiling) -> Size:
    """(rows, columns) of tiles for an image of (height, width): those of the closest aspect ratio.

    Of those that are equally close, the one of the most tiles that are less than twice as large as the image together.
    """
    height, width = size
    best, best_difference = (1, 1), float("inf")
    for rows, columns in _arrangements(tiling.least, tiling.most):
        difference = abs(width / height - columns / rows)
        is_large_enough = height * width > 0.5 * tiling.size[0] * tiling.size[1] * columns * rows
        if difference < best_difference or (difference == best_difference and is_large_enough):
            best, best_difference = (rows, columns), difference
    return best


@lru_cache(maxsize=16)
def _arrangements(least: int, most: int) -> list[Size]:
    """All (rows, columns) with so many tiles, the fewest tiles first, then the fewest columns."""
    sides = range(1, most + 1)
    found = [(rows, columns) for columns in sides for rows in sides if least <= rows * columns <= most]
    return sorted(found, key=lambda shape: shape[0] * shape[1])


def cut_tiles(image: np.ndarray, tiling: Tiling) -> np.ndarray:
    """Cut an image into tiles, and add the whole image, as small as a tile, where there are several.

    Args:
        image: uint8 (height, width, 3), contiguous.

    Returns:
        uint8 (tiles, 3, tile height, tile width).

    Raises:
        RowError: see `resize`.
    """
    (height, width), (rows, columns) = tiling.size, tiles_of(image.shape[:2], tiling)  # type: ignore[arg-type]
    count = rows * columns + (rows * columns > 1)
    tiles = new_pixels(count, 3, height, width)
    resize_to_tiles(image, (height * rows, width * columns), tiling.filter, tiles)
    if count > 1:
        resize_to_tiles(image, tiling.size, tiling.filter, tiles[-1:])
    return tiles
