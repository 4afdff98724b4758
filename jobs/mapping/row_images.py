"""The images and videos of a row: those of its columns, and those that its messages hold."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from run_batch.io.media.image_column import content_of, images_in
from run_batch.io.media.image_reader import MAX_BYTES, MAX_VIDEO_BYTES, MediaReader
from run_batch.jobs.mapping.prompt_draft import PromptDraft
from run_batch.jobs.mapping.row_clock import clock
from run_batch.model.declaration import RowError
from run_batch.model.images.features import features_tensor
from run_batch.model.images.row_image import EncodedImage, RowImage
from run_batch.model.rendering.row_video import EncodedVideo

# Of a path, in messages.
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
            cell for row, draft in rows for cell in (*([row[self._column]] if self._column else []), *draft.images)
        )

    def read(self, row: Mapping[str, Any], draft: PromptDraft) -> tuple[list[RowImage], list[RowImage]]:
        """The images of the row's image column, and those that its draft holds.

        Raises:
            RowError, MediaError: an image cannot be read, or the row's images are too large together.
        """
        images = list(self._read_all(row[self._column])) if self._column else []
        held = [self._read_one(cell) for cell in draft.images]
        nbytes = sum(map(nbytes_of, [*images, *held]))
        if held and nbytes > MAX_BYTES:
            raise RowError("image_too_large", f"{nbytes:,} bytes in all images of the row; the limit is {MAX_BYTES:,}")
        return images, held

    def _read_all(self, cell: Any) -> Iterator[RowImage]:
        yield from map(_as_row_image, _contents(self._media, cell, "image"))

    def _read_one(self, cell: Any) -> RowImage:
        images = list(self._read_all(cell))
        if len(images) != 1:
            raise RowError("image_form", f"a part of type image holds {len(images)} images; expected one")
        return images[0]


class RowVideos:
    """Reads the videos of rows.

    Args:
        media: a reader of videos.
        column: the video column; None for a job without one.
    """

    def __init__(self, media: MediaReader, column: str | None) -> None:
        self._media, self._column = media, column

    def announce(self, rows: Iterable[tuple[Mapping[str, Any], PromptDraft]]) -> None:
        """Start to download the videos of rows, in the order in which they will be read."""
        self._media.announce(cell for row, draft in rows for cell in (*self._own_cells(row), *draft.videos))

    def read(self, row: Mapping[str, Any], draft: PromptDraft) -> tuple[list[EncodedVideo], list[EncodedVideo]]:
        """The videos of the row's video column, and those that its draft holds.

        Raises:
            RowError, MediaError: a video cannot be read, or the row's videos are too large together.
        """
        videos = [video for cell in self._own_cells(row) for video in self._read_all(cell)]
        held: list[EncodedVideo] = []
        for cell in draft.videos:
            held += self._read_all(cell)
            nbytes = sum(map(nbytes_of, [*videos, *held]))
            if nbytes > MAX_VIDEO_BYTES:
                raise RowError(
                    "video_too_large", f"{nbytes:,} bytes in all videos of the row; the limit is {MAX_VIDEO_BYTES:,}"
                )
        return videos, held

    def _own_cells(self, row: Mapping[str, Any]) -> list[Any]:
        return [] if self._column is None else [row[self._column]]

    def _read_all(self, cell: Any) -> Iterator[EncodedVideo]:
        contents = _contents(self._media, cell, "video")
        yield from (EncodedVideo.of(content) for content in contents if isinstance(content, bytes))


def nbytes_of(item: RowImage | EncodedVideo) -> int:
    """Bytes of an encoded image or video, or of a tensor of features."""
    return len(item.encoded) if isinstance(item, EncodedImage | EncodedVideo) else getattr(item, "nbytes", 0)


def _contents(media: MediaReader, cell: Any, what: str) -> Iterator[bytes | np.ndarray]:
    """What a cell holds; the row's clock knows which file is read, and rests while one is downloaded."""
    contents = media.read(cell)
    for item in images_in(cell):
        named = content_of(item)
        if not isinstance(named, str):
            yield next(contents)
            continue
        is_downloaded = media.is_downloaded(named)
        with clock.resting() if is_downloaded else clock.reading(f"{what} {named[:_SHOWN_CHARACTERS]}"):
            content = next(contents)
        yield content
    yield from contents  # precomputed features


def _as_row_image(image: bytes | np.ndarray) -> RowImage:
    return features_tensor(image) if isinstance(image, np.ndarray) else EncodedImage.of(image)
