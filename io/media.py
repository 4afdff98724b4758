"""The image forms of a row to encoded bytes or arrays of features: bytes, struct, path, list, null.

Paths stay inside the media root, whatever `..`, absolute paths or symbolic links say; only regular files are opened.
"""

import os
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

# Far above any photograph; keeps one hostile row from taking a worker's memory.
MAX_BYTES = 128 << 20


class MediaError(Exception):
    """This row's image cannot be read.

    Args:
        kind: stable name that users filter on, e.g. `image_not_found`.
        message: what is wrong with this row.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(f"{kind}: {message}")
        self.kind = kind


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

    def __init__(self, root: Path | None) -> None:
        """`root` is the folder that image paths are relative to and cannot leave; None allows no paths."""
        self._root = None if root is None else Path(os.path.realpath(root))

    def read(self, cell: Any) -> list[bytes | np.ndarray]:
        """The images of one cell of the image column, in order; none for null.

        Returns:
            Encoded bytes, or arrays of precomputed features where the column is one of nested lists of numbers.

        Raises:
            MediaError: an image is missing, not allowed, too large, or of no known form.
        """
        if isinstance(cell, pa.Scalar):
            return _read_features(cell)
        if cell is None:
            return []
        if isinstance(cell, list):
            return [self._read_one(item) for item in cell]
        if isinstance(cell, dict) and cell.get("bytes") is None and cell.get("path") is None:
            return []
        return [self._read_one(cell)]

    def _read_one(self, item: Any) -> bytes:
        if isinstance(item, dict):
            item = item["bytes"] if item.get("bytes") is not None else item.get("path")
        if isinstance(item, bytes):
            if len(item) > MAX_BYTES:
                raise MediaError("image_too_large", f"{len(item):,} bytes; the limit is {MAX_BYTES:,} bytes")
            return item
        if isinstance(item, str):
            return self._read_path(item)
        if item is None:
            raise MediaError("image_null", "the list of images holds a null")
        raise MediaError("image_form", f"an image cannot be a {type(item).__name__}")

    def _read_path(self, text: str) -> bytes:
        if text.startswith(("http://", "https://")):
            raise MediaError("url_not_allowed", "images by URL are not allowed")
        if self._root is None:
            raise MediaError("path_not_allowed", "the input is not on a local file system: set input.media_root")
        if not text or "\0" in text:
            raise MediaError("image_not_found", "the image path is empty or holds a NUL character")
        path = os.path.realpath(self._root / text)
        if os.path.commonpath([path, self._root]) != str(self._root):
            raise MediaError("path_not_allowed", f"{text} leads out of input.media_root")
        try:
            return _read_regular_file(path, text)
        except FileNotFoundError:
            raise MediaError("image_not_found", f"no file {text} in input.media_root") from None
        except OSError as error:
            raise MediaError("image_unreadable", f"{text}: {error.strerror}") from None


def _read_regular_file(path: str, text: str) -> bytes:
    # Non-blocking: opening a FIFO must not wait for somebody to write into it.
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW), "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise MediaError("image_unreadable", f"{text} is not a regular file")
        if status.st_size > MAX_BYTES:
            raise MediaError("image_too_large", f"{text}: {status.st_size:,} bytes; the limit is {MAX_BYTES:,} bytes")
        return file.read()
