"""Reads the images of rows, in whichever form the image column holds them (see image_column.py).

Paths are read below the media root only (media_root.py), URLs from allowed hosts only (image_download.py).
"""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from run_batch.io.media.allowed_hosts import HostRules
from run_batch.io.media.errors import MediaError
from run_batch.io.media.image_column import content_of, images_in, read_features
from run_batch.io.media.image_download import is_url
from run_batch.io.media.media_root import read_below
from run_batch.io.media.prefetch import UrlFetcher

# Limit of all images of a row together. Far above any photograph; bounds the memory that a hostile row can take.
MAX_BYTES = 128 << 20


class MediaReader:
    """Reads the images of rows, and downloads those by URL ahead of their rows."""

    def __init__(self, root: Path | None, hosts: HostRules | None = None) -> None:
        """Set where images may come from.

        Args:
            root: the folder that image paths are relative to and cannot leave; None allows no paths.
            hosts: where URLs may lead; None allows no URLs.
        """
        self._root = None if root is None else Path(os.path.realpath(root))
        self._urls = UrlFetcher(hosts or HostRules(), MAX_BYTES)

    def announce(self, cells: Iterable[Any]) -> None:
        """Start to download the images of the cells that will be read next, in this order."""
        self._urls.announce(item for cell in cells for item in map(content_of, images_in(cell)) if _is_url(item))

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
        total = 0
        for item in images_in(cell):
            encoded = self._read_one(item)
            total += len(encoded)
            if total > MAX_BYTES:
                raise MediaError(
                    "image_too_large", f"{total:,} bytes in all images of the row; the limit is {MAX_BYTES:,} bytes"
                )
            yield encoded

    def _read_one(self, item: Any) -> bytes:
        content = content_of(item)
        if isinstance(content, bytes):
            return content
        if isinstance(content, str):
            return self._urls.read(content) if is_url(content) else read_below(self._root, content, MAX_BYTES)
        if content is None:
            raise MediaError("image_null", "the list of images holds a null")
        if isinstance(content, dict):
            raise MediaError("image_form", f"a struct of {', '.join(content)}: its image is not in bytes or path")
        raise MediaError("image_form", f"an image cannot be a {type(content).__name__}")


def _is_url(content: Any) -> bool:
    return isinstance(content, str) and is_url(content)
