"""The images of a row: those of its image column, and those that its messages hold."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from run_batch.io.media.image_reader import MAX_BYTES, MediaReader
from run_batch.jobs.mapping.prompt_draft import PromptDraft
from run_batch.model.declaration import RowError
from run_batch.model.images.features import features_tensor
from run_batch.model.images.row_image import EncodedImage, RowImage


class RowImages:
    """Reads the images of rows.

    Args:
        column: the image column; empty for a job without one.
    """

    def __init__(self, media: MediaReader, column: str) -> None:
        self._media, self._column = media, column

    def announce(self, rows: Iterable[tuple[Mapping[str, Any], PromptDraft]]) -> None:
        """Start to download the images of rows, in the order in which they will be read."""
        self._media.announce(
            cell for row, draft in rows for cell in (*([row[self._column]] if self._column else []), *draft.cells)
        )

    def read(self, row: Mapping[str, Any], draft: PromptDraft) -> tuple[list[RowImage], list[RowImage]]:
        """The images of the row's image column, and those of its draft's cells.

        Raises:
            RowError, MediaError: an image cannot be read, or the row's images are too large together.
        """
        images = [_as_row_image(image) for image in self._media.read(row[self._column])] if self._column else []
        held = [self._read_one(cell) for cell in draft.cells]
        nbytes = sum(map(nbytes_of, [*images, *held]))
        if held and nbytes > MAX_BYTES:
            raise RowError("image_too_large", f"{nbytes:,} bytes in all images of the row; the limit is {MAX_BYTES:,}")
        return images, held

    def _read_one(self, cell: Any) -> RowImage:
        images = [_as_row_image(image) for image in self._media.read(cell)]
        if len(images) != 1:
            raise RowError("image_form", f"a part of type image holds {len(images)} images; expected one")
        return images[0]


def nbytes_of(image: RowImage) -> int:
    """Bytes of an encoded image, or of a tensor of features."""
    return len(image.encoded) if isinstance(image, EncodedImage) else getattr(image, "nbytes", 0)


def _as_row_image(image: bytes | np.ndarray) -> RowImage:
    return features_tensor(image) if isinstance(image, np.ndarray) else EncodedImage.of(image)
