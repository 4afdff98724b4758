"""The images of a row: those of its image column, and those that its messages hold."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from run_batch.io.media.image_column import content_of, images_in
from run_batch.io.media.image_reader import MAX_BYTES, MediaReader
from run_batch.jobs.mapping.prompt_draft import PromptDraft
from run_batch.jobs.mapping.row_clock import clock
from run_batch.model.declaration import RowError
from run_batch.model.images.features import features_tensor
from run_batch.model.images.row_image import EncodedImage, RowImage

# Of an image's path, in messages.
_SHOWN_CHARACTERS = 200


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
        images = list(self._read_all(row[self._column])) if self._column else []
        held = [self._read_one(cell) for cell in draft.cells]
        nbytes = sum(map(nbytes_of, [*images, *held]))
        if held and nbytes > MAX_BYTES:
            raise RowError("image_too_large", f"{nbytes:,} bytes in all images of the row; the limit is {MAX_BYTES:,}")
        return images, held

    def _read_all(self, cell: Any) -> Iterator[RowImage]:
        """The images of a cell; the row's clock knows which is read, and rests while one is downloaded."""
        images = self._media.read(cell)
        for item in images_in(cell):
            content = content_of(item)
            if not isinstance(content, str):
                yield _as_row_image(next(images))
                continue
            is_downloaded = self._media.is_downloaded(content)
            with clock.resting() if is_downloaded else clock.reading(f"image {content[:_SHOWN_CHARACTERS]}"):
                image = next(images)
            yield _as_row_image(image)
        yield from map(_as_row_image, images)  # precomputed features

    def _read_one(self, cell: Any) -> RowImage:
        images = list(self._read_all(cell))
        if len(images) != 1:
            raise RowError("image_form", f"a part of type image holds {len(images)} images; expected one")
        return images[0]


def nbytes_of(image: RowImage) -> int:
    """Bytes of an encoded image, or of a tensor of features."""
    return len(image.encoded) if isinstance(image, EncodedImage) else getattr(image, "nbytes", 0)


def _as_row_image(image: bytes | np.ndarray) -> RowImage:
    return features_tensor(image) if isinstance(image, np.ndarray) else EncodedImage.of(image)
