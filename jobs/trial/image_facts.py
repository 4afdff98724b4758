"""What the images of a row are, before a model's mapper makes tensors of them."""

import contextlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from blake3 import blake3

from run_batch.io.media.errors import MediaError
from run_batch.io.media.image_column import image_cells
from run_batch.io.media.image_reader import MediaReader
from run_batch.model.declaration import RowError
from run_batch.model.images.decode import DecodedImage, file_format
from run_batch.model.images.row_image import EncodedImage, decode_row_image


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """One image of a row.

    Attributes:
        what: file format such as `JPEG`; `features` for precomputed features; "" for a file that cannot be decoded.
        shape: width and height in pixels, upright; of features, their number and their size; empty if not decoded.
        nbytes: of the file; of features in a column, of their values.
        digest: equal for equal content.
    """

    what: str
    shape: tuple[int, ...]
    nbytes: int
    digest: str

    def __str__(self) -> str:
        size = " x ".join(map(str, self.shape))
        return f"{size} {self.what}, {self.nbytes:,} bytes" if self.what else f"{self.nbytes:,} bytes, not decoded"


def image_facts(media: MediaReader, column: pa.Array) -> list[list[ImageFacts]]:
    """The images of each row, up to one that cannot be read: why it cannot be is the row's error.

    Args:
        column: cells of the image column.
    """
    return [_of_cell(media, column.slice(row, 1)) for row in range(len(column))]


def _of_cell(media: MediaReader, cell: pa.Array) -> list[ImageFacts]:
    facts: list[ImageFacts] = []
    with contextlib.suppress(MediaError, UnicodeDecodeError):
        for image in media.read(image_cells(cell)[0]):
            facts.append(_of_image(image))
    return facts


def _of_image(image: bytes | np.ndarray) -> ImageFacts:
    if isinstance(image, np.ndarray):
        return ImageFacts("features", image.shape, image.nbytes, blake3(image.tobytes()).hexdigest())
    digest = blake3(image)
    try:
        decoded: Any = decode_row_image(EncodedImage(image, digest.digest()))
    except RowError:
        return ImageFacts("", (), len(image), digest.hexdigest())
    if isinstance(decoded, DecodedImage):
        return ImageFacts(file_format(image), (decoded.width, decoded.height), len(image), digest.hexdigest())
    return ImageFacts("features", tuple(decoded.shape), len(image), digest.hexdigest())
