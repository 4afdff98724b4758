"""An image as a row brings it: the bytes of a file, a PIL image, or precomputed features."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from blake3 import blake3
from PIL import Image

from run_batch.model.images.decode import DecodedImage, Size, decode_image, from_pil
from run_batch.model.images.features import decode_features, is_encoded_features


@dataclass(frozen=True, slots=True)
class EncodedImage:
    """The bytes of an image file, or of a file of image features, before they are decoded.

    Attributes:
        digest: BLAKE3 digest of the bytes, by which an image that comes again is recognized.
    """

    encoded: bytes
    digest: bytes

    @classmethod
    def of(cls, encoded: bytes) -> "EncodedImage":
        """The image in the bytes of a file."""
        return cls(encoded, blake3(encoded).digest())


RowImage: TypeAlias = EncodedImage | Image.Image | torch.Tensor


def decode_row_image(image: RowImage, needed_size: Callable[[Size], Size] | None = None) -> DecodedImage | torch.Tensor:
    """The pixels of an image or, where the row has those, its precomputed features.

    Args:
        needed_size: see decode_image.

    Raises:
        RowError: the file cannot be decoded; see decode_image and decode_features.
    """
    if isinstance(image, torch.Tensor):
        return image
    if isinstance(image, Image.Image):
        return from_pil(image)
    if is_encoded_features(image.encoded):
        return decode_features(image.encoded)
    return decode_image(image.encoded, needed_size)
