"""An image as a row brings it: the bytes of a file, a PIL image, or precomputed features."""

from dataclasses import dataclass
from typing import TypeAlias

import torch
from PIL import Image


@dataclass(frozen=True, slots=True)
class EncodedImage:
    """The bytes of an image file, or of a file of image features, to be decoded when they are mapped.

    Attributes:
        digest: BLAKE3 of the bytes, by which an image that comes again is known.
    """

    encoded: bytes
    digest: bytes


RowImage: TypeAlias = EncodedImage | Image.Image | torch.Tensor
