"""The image forms of a row to encoded bytes or arrays of features: bytes, struct, path, URL, list, null.

Paths stay inside the media root, whatever `..`, absolute paths or symbolic links say; only regular files are opened.
URLs are fetched from allowed hosts only (run_batch.io.media.download).
"""

import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from run_batch.io.media.allowed_hosts import HostRules
from run_batch.io.media.download import is_url
from run_batch.io.media.errors import MediaError
from run_batch.io.media.prefetch import UrlFetcher

# Of all images of a row together. Far above any photograph; keeps one hostile row from taking a worker's memory.
MAX_BYTES = 128 << 20
# Longer paths are cut where an error shows them.
_SHOWN_CHARACTERS = 200


def image_cells(column: pa.Array) -> list[Any]:
    """The cells of the image column, as MediaReader takes them."""
    if isinstance(column, pa.ExtensionArray):
        column = column.storage
    # Nested lists of numbers stay in Arrow: as Python objects they would take thirty times the memory.
    return list(column) if _features_depth(column.type) else column.to_pylist()


def _features_depth(kind: pa.DataType) -> int:
    """How many lists deep the numbers of a column of features lie; 0 for a column of anything else."""
    depth = 0
    while pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        depth, kind = depth + 1, kind.value_type
    return depth if pa.types.is_floating(kind) or pa.types.is_integer(kind) else 0


def _read_features(cell: pa.Scalar) -> list[bytes | np.ndarray]:
    """One array of features, (features, hidden size), or several of them."""
    if not cell.is_valid:
        return []
    depth = _features_depth(cell.type)
    if depth == 3:
        return [array for image in cell.values for array in _read_features(image)]
    if depth != 2:
        raise MediaError("features", f"image features are lists in a list, found {cell.type}")
    rows = cell.values
    widths = pc.unique(pc.list_value_length(rows)).to_pylist()
    if rows.null_count or len(widths) != 1:
        raise MediaError("features", f"the features of an image have different lengths: {widths}")
    numbers = rows.flatten()
    if numbers.null_count:
        raise MediaError("features", "image features hold nulls")
    return [numbers.to_numpy(zero_copy_only=False).reshape(len(rows), widths[0])]


class MediaReader:
    """Reads the encoded images of rows."""

    def __init__(self, root: Path | None, hosts: HostRules | None = None) -> None:
        """Take the walls around images.

        Args:
            root: the folder that image paths are relative to and cannot leave; None allows no paths.
            hosts: where images by URL may come from; nowhere when left out.
        """
        self._root = None if root is None else Path(os.path.realpath(root))
        self._urls = UrlFetcher(hosts or HostRules(), MAX_BYTES)

    def announce(self, cells: Iterable[Any]) -> None:
        """Say which cells will be read next, in this order: images by URL are fetched ahead of that."""
        self._urls.announce(item for cell in cells for item in map(_content, _items(cell)) if _is_url(item))

    def read(self, cell: Any) -> Iterator[bytes | np.ndarray]:
        """The images of one cell of the image column, in order, each when it is asked for; none for null.

        Returns:
            Encoded bytes, or arrays of precomputed features where the column is one of nested lists of numbers.

        Raises:
            MediaError: an image is missing, not allowed, too large, or of no known form.
        """
        if isinstance(cell, pa.Scalar):
            yield from _read_features(cell)
            return
        total = 0
        for item in _items(cell):
            encoded = self._read_one(item)
            total += len(encoded)
            if total > MAX_BYTES:
                raise MediaError(
                    "image_too_large", f"{total:,} bytes in all images of the row; the limit is {MAX_BYTES:,} bytes"
                )
            yield encoded

    def _read_one(self, item: Any) -> bytes:
        content = _content(item)
        if isinstance(content, bytes):
            return content
        if isinstance(content, str):
            return self._urls.read(content) if is_url(content) else self._read_path(content)
        if content is None:
            raise MediaError("image_null", "the list of images holds a null")
        raise MediaError("image_form", f"an image cannot be a {type(content).__name__}")

    def _read_path(self, text: str) -> bytes:
        shown = text[:_SHOWN_CHARACTERS]
        if self._root is None:
            raise MediaError("path_not_allowed", "the input is not on a local file system: set input.media_root")
        if not text or "\0" in text:
            raise MediaError("image_not_found", "the image path is empty or holds a NUL character")
        path = os.path.realpath(self._root / text)
        if os.path.commonpath([path, self._root]) != str(self._root):
            raise MediaError("path_not_allowed", f"{shown} leads out of input.media_root")
        try:
            return _read_regular_file(_open_below(self._root, path), shown)
        except FileNotFoundError:
            raise MediaError("image_not_found", f"no file {shown} in input.media_root") from None
        except OSError as error:
            raise MediaError("image_unreadable", f"{shown}: {error.strerror}") from None


def _items(cell: Any) -> list[Any]:
    """The images of a cell, one by one."""
    if cell is None or isinstance(cell, pa.Scalar):
        return []
    if isinstance(cell, list):
        return cell
    empty = isinstance(cell, dict) and cell.get("bytes") is None and cell.get("path") is None
    return [] if empty else [cell]


def _content(item: Any) -> Any:
    """What an image is given by: bytes, a path or a URL."""
    if not isinstance(item, dict):
        return item
    return item["bytes"] if item.get("bytes") is not None else item.get("path")


def _is_url(content: Any) -> bool:
    return isinstance(content, str) and is_url(content)


def _open_below(root: Path, path: str) -> int:
    """Open a file below `root` without following any symbolic link: `path` is resolved already.

    A folder that somebody replaces by a link after it was resolved, and before it is opened, so leads nowhere.
    """
    *folders, name = Path(path).relative_to(root).parts or (".",)
    flags = os.O_NOFOLLOW | os.O_CLOEXEC
    folder = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in folders:
            inner = os.open(part, os.O_PATH | os.O_DIRECTORY | flags, dir_fd=folder)
            os.close(folder)
            folder = inner
        # Non-blocking: opening a FIFO must not wait for somebody to write into it.
        return os.open(name, os.O_RDONLY | os.O_NONBLOCK | flags, dir_fd=folder)
    finally:
        os.close(folder)


def _read_regular_file(descriptor: int, shown: str) -> bytes:
    with open(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise MediaError("image_unreadable", f"{shown} is not a regular file")
        # One byte more than is allowed: a file may grow, or be one whose size is not known before it is read.
        content = b"" if status.st_size > MAX_BYTES else file.read(MAX_BYTES + 1)
    if status.st_size > MAX_BYTES or len(content) > MAX_BYTES:
        size = max(status.st_size, len(content))
        raise MediaError("image_too_large", f"{shown}: {size:,} bytes; the limit is {MAX_BYTES:,} bytes")
    return content
