"""Reads the images of rows, or their videos, in whichever form their column holds them (see image_column.py).

Paths are read below the media root only (media_root.py), URLs from allowed hosts and buckets only (image_download.py,
object_download.py). Images that are written into text (inline_images.py) need neither. The media root may be in a store
of objects: then paths stand for URLs.
"""

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from run_batch.io.media.allowed_hosts import HostRules
from run_batch.io.media.errors import MediaError
from run_batch.io.media.image_column import content_of, images_in, read_features
from run_batch.io.media.image_download import is_url
from run_batch.io.media.inline_images import (
    begins_as_base64_image,
    is_base64,
    is_data_url,
    read_base64,
    read_data_url,
)
from run_batch.io.media.media_root import MAX_PATH_CHARACTERS, MediaRoot, exists_below, object_below, read_below
from run_batch.io.media.prefetch import UrlFetcher

# Limit of all images of a row together. Far above any photograph; bounds the memory that a hostile row can take.
MAX_BYTES = 128 << 20
# The same of all videos of a row.
MAX_VIDEO_BYTES = 512 << 20
# A form in which vLLM's server takes the frames of a video.
_FRAMES = re.compile(r"\s*data:video/jpeg[;,]", re.IGNORECASE)
# As many bytes as tell whether they are text of an image.
_TEXT_IN_BYTES = 128


class MediaReader:
    """Reads the images of rows, or their videos, and downloads those by URL ahead of their rows."""

    def __init__(
        self,
        root: MediaRoot | None,
        hosts: HostRules | None = None,
        bytes_ahead: int = MAX_BYTES,
        *,
        are_videos: bool = False,
    ) -> None:
        """Set where they may come from.

        Args:
            root: the folder that image paths are relative to and cannot leave, or its URL in a store of objects; None
                allows no paths.
            hosts: where URLs may lead; None allows no URLs.
            bytes_ahead: of images that are downloaded ahead of their rows.
            are_videos: read videos, of which a row may have more bytes; base64 of them needs `data:` before it.
        """
        self._are_videos, self._max_bytes = are_videos, MAX_VIDEO_BYTES if are_videos else MAX_BYTES
        self._root = Path(os.path.realpath(root)) if isinstance(root, Path) else None
        self._remote_root = root.rstrip("/") if isinstance(root, str) else None
        rules = hosts or HostRules()
        if self._remote_root is not None:
            rules = replace(rules, allowed=rules.allowed | {self._remote_root})
        self._urls = UrlFetcher(rules, self._max_bytes, bytes_ahead)

    def announce(self, cells: Iterable[Any]) -> None:
        """Start to download the images of the cells that will be read next, in this order."""
        contents = (content_of(item) for cell in cells for item in images_in(cell))
        self._urls.announce(url for content in contents if (url := self._url_of(content)) is not None)

    def is_downloaded(self, content: Any) -> bool:
        """Whether the content of an image cell names what is read over the network, and may be waited for."""
        return self._url_of(content) is not None

    def read(self, cell: Any) -> Iterator[bytes | np.ndarray]:
        """Read the images of one cell of the image column, in order, each when it is asked for; none for null.

        Yields:
            Encoded bytes, or arrays of precomputed features of shape (features, hidden size).

        Raises:
            MediaError: an image is missing, not allowed, too large, or of no known form.
        """
        if isinstance(cell, pa.Scalar):
            yield from read_features(cell)
            return
        try:
            yield from self._read_all(cell)
        except MediaError as error:
            if not self._are_videos:
                raise
            raise error.of_video() from error.__cause__

    def _read_all(self, cell: Any) -> Iterator[bytes]:
        total, what = 0, "videos" if self._are_videos else "images"
        for item in images_in(cell):
            encoded = self._read_one(item)
            _check_is_no_text(encoded)
            total += len(encoded)
            if total > self._max_bytes:
                raise MediaError(
                    "image_too_large",
                    f"{total:,} bytes in all {what} of the row; the limit is {self._max_bytes:,} bytes",
                )
            yield encoded

    def _read_one(self, item: Any) -> bytes:
        content = content_of(item)
        if isinstance(content, bytes):
            return content
        if isinstance(content, str):
            return self._read_text(content)
        if content is None:
            raise MediaError("image_null", "the list holds a null")
        if isinstance(content, dict):
            raise MediaError("image_form", f"a struct of {', '.join(content)}: nothing is in bytes or path")
        what = "a video" if self._are_videos else "an image"
        raise MediaError("image_form", f"{what} cannot be a {type(content).__name__}")

    def _read_text(self, text: str) -> bytes:
        if not _is_utf8(text):
            raise MediaError("text_encoding", "the path or URL is text that is not UTF-8")
        if is_data_url(text):
            if self._are_videos and _FRAMES.match(text):
                raise MediaError("image_form", "a data: URL of video/jpeg holds frames as images, not a video file")
            return read_data_url(text, self._max_bytes)
        if not is_url(text) and self._is_base64_image(text):
            return read_base64(text, self._max_bytes)
        url = self._url_of(text)
        if url is None and self._remote_root is not None:
            raise MediaError("path_not_allowed", f"{text[:200]!r} is no path of an object inside of input.media_root")
        return read_below(self._root, text, self._max_bytes) if url is None else self._urls.read(url)

    def _url_of(self, content: Any) -> str | None:
        """The URL that the content of an image cell is read from; None for what is no URL, or leads nowhere."""
        if not isinstance(content, str) or is_data_url(content):
            return None
        if is_url(content):
            return content
        if self._remote_root is None or self._is_base64_image(content):
            return None
        return object_below(self._remote_root, content)

    def _is_base64_image(self, text: str) -> bool:
        """Whether text is base64 of an image and no path; a file that has such a name is one."""
        if self._are_videos or not begins_as_base64_image(text):
            return False
        return len(text) > MAX_PATH_CHARACTERS or (is_base64(text) and not exists_below(self._root, text))


def _check_is_no_text(encoded: bytes) -> None:
    """Refuse bytes that hold an image as text, which a decoder would only call no image."""
    beginning = encoded[:_TEXT_IN_BYTES]
    if beginning[:8].isascii():
        text = beginning.decode("latin-1")
        if is_data_url(text) or begins_as_base64_image(text):
            raise MediaError(
                "image_decode",
                f"the bytes are text of an image, {text[:40]!r}…: make the column text, or decode it",
            )


def _is_utf8(text: str) -> bool:
    """Whether text can be encoded: JSON may hold halves of surrogate pairs."""
    try:
        return text.isascii() or bool(text.encode())
    except UnicodeEncodeError:
        return False
