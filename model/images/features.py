"""Reads precomputed image features to tensors, and maps them by default."""

import io
import math
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors

from run_batch.model.declaration import RowError

_NPY_MAGIC = b"\x93NUMPY"


def is_encoded_features(encoded: bytes) -> bool:
    """Whether these bytes are a `.npy` or safetensors file rather than an image."""
    # safetensors: the length of a JSON header, then the header.
    header = int.from_bytes(encoded[:8], "little")
    return encoded.startswith(_NPY_MAGIC) or (encoded[8:9] == b"{" and 2 <= header <= len(encoded) - 8)


def decode_features(encoded: bytes) -> torch.Tensor:
    """The one tensor of a `.npy` or safetensors file; pickled objects are refused.

    Raises:
        RowError: `features`, for a damaged file, or one that does not hold exactly one tensor.
    """
    try:
        if encoded.startswith(_NPY_MAGIC):
            return features_tensor(_load_npy(encoded))
        tensors = list(load_safetensors(encoded).values())
    except (ValueError, EOFError, OSError, TypeError, SafetensorError) as error:
        raise RowError("features", f"damaged file of image features: {error}") from None
    if len(tensors) != 1:
        raise RowError("features", f"a safetensors file of image features holds one tensor, found {len(tensors)}")
    return tensors[0]


def _load_npy(encoded: bytes) -> np.ndarray:
    file = io.BytesIO(encoded)
    version = np.lib.format.read_magic(file)
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read_header(file)
    # A header may claim any shape: checked before numpy allocates memory for it.
    if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize > len(encoded):
        raise ValueError(f"shape {shape} and dtype {dtype} do not fit {len(encoded)} bytes")
    return np.load(io.BytesIO(encoded), allow_pickle=False)


def features_tensor(values: np.ndarray) -> torch.Tensor:
    """Convert an array of features, of any shape, to a tensor in native byte order.

    Raises:
        RowError: `features`, for a dtype that is neither floating point nor integer.
    """
    if values.dtype.kind not in "fiu":
        raise RowError("features", f"image features have dtype {values.dtype}; expected a floating point dtype")
    return torch.from_numpy(np.ascontiguousarray(values.astype(values.dtype.newbyteorder("="))))


def map_image_features(context: Any, items: list[torch.Tensor]) -> dict[str, list[torch.Tensor]]:
    """The default feature mapper: passes precomputed features on in the model's dtype.

    Args:
        items: floating point tensors of shape (features, hidden size of the language model).

    Returns:
        `image_features`: one tensor per item, of the same shape.

    Raises:
        RowError: `features`, for a wrong shape or dtype, or for values that are not finite.
    """
    config = context.get_hf_config()
    hidden_size = config.get_text_config().hidden_size
    for item in items:
        if item.ndim != 2 or item.shape[1] != hidden_size or not len(item) or not item.is_floating_point():
            raise RowError(
                "features",
                f"image features have shape {tuple(item.shape)} and dtype {item.dtype}; "
                f"expected (number of features, {hidden_size}) and a floating point dtype",
            )
        if not torch.isfinite(item).all():
            raise RowError("features", "image features hold NaN or infinite values")
    return {"image_features": [item.to(context.model_config.dtype) for item in items]}
