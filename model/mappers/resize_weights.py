"""The weights by which torch and Pillow resize one direction of an image, as `weighted_rows` takes them.

Both compute the same weights, and round them to integers: torch to 16 bits, in a unit that depends on the largest of
them, Pillow to multiples of 2 ** -22, which do not fit into 16 bits: they are split.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import numpy as np

from run_batch.model.images.resize import FILTERS, LOW_BITS, WEIGHT_BITS, round_weights, weights_of

# Of one direction of an image that is resized by these, and of one whose weights are kept for the next of its size.
_MAX_WEIGHTS, _KEPT_WEIGHTS = 1 << 22, 1 << 15
# Of a weight, and of its unit; torch's limits.
_TORCH_BITS, _MAX_BITS = 15, 22

# Function of weights, float64, to int16 as `sum_lanes` takes them, and to the bits of their unit.
Rounding: TypeAlias = Callable[[np.ndarray], tuple[np.ndarray, int]]


class Direction(NamedTuple):
    """The resize of one direction; see `weighted_rows`."""

    begins: np.ndarray
    pairs: np.ndarray
    weights: np.ndarray
    bits: int


def as_torch(weights: np.ndarray) -> tuple[np.ndarray, int]:
    """Round as torch does to resize bytes."""
    largest = weights.max()
    bits = next((b for b in range(_MAX_BITS) if int(0.5 + largest * (2 << b)) >= 1 << _TORCH_BITS), _MAX_BITS)
    return round_weights(weights, bits).astype(np.int16), bits


def as_pillow(weights: np.ndarray) -> tuple[np.ndarray, int]:
    """Round as Pillow does to resize bytes."""
    rounded = round_weights(weights, WEIGHT_BITS).astype(np.int32)
    return np.stack(np.divmod(rounded, 1 << LOW_BITS), axis=1).astype(np.int16), WEIGHT_BITS


def direction(length: int, new_length: int, filter: str, rounding: Rounding) -> Direction | None:
    """None where it is not resized by these: an unusual filter, few old values, or very many."""
    if length == new_length:
        # It takes each old value once, and its neighbour with weight 0.
        filter = "bilinear"
    if filter not in FILTERS or 5 * max(length, new_length) > _MAX_WEIGHTS:
        return None
    few = 5 * max(length, new_length) <= _KEPT_WEIGHTS
    return (_kept_direction if few else _new_direction)(length, new_length, filter, rounding)


def _new_direction(length: int, new_length: int, filter: str, rounding: Rounding) -> Direction | None:
    begins, taps, weights = weights_of(length, new_length, 0, new_length, FILTERS[filter])
    pairs = (taps + 1) // 2
    most = 2 * int(pairs.max())
    if most > length:
        return None
    # An odd number of old values gets one more, of weight 0: before them where there is none after them.
    shifted = np.minimum(begins, length - 2 * pairs)
    even = np.zeros((new_length, most))
    for shift in np.unique(begins - shifted):
        its = begins - shifted == shift
        even[its, shift : shift + weights.shape[1]] = weights[its, : most - shift]
    return Direction(shifted, pairs, *rounding(even))


_kept_direction = functools.lru_cache(maxsize=128)(_new_direction)
