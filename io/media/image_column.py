"""The cells of the columns of images and of videos: which images or videos a cell holds, and in which form.

An image is bytes, text (a path, a URL, a data: URL or base64), or a struct of bytes and path as in Hugging Face
datasets; a list holds several. A column of nested lists of numbers holds precomputed image features instead.
"""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from run_batch.io.arrow_types import is_bytes, is_list, is_text
from run_batch.io.media.errors import MediaError

ACCEPTED = (
    "bytes, text (paths, URLs, data: URLs or base64), a struct of bytes and path, a list of these, or lists of lists "
    "of numbers (features)"
)


ACCEPTED_VIDEOS = "bytes, text (paths, URLs or data: URLs), a struct of bytes and path, or a list of these"


def can_hold_images(kind: pa.DataType) -> bool:
    """Whether a column of this type can hold images, one or several a row, or precomputed features."""
    if isinstance(kind, pa.BaseExtensionType):
        kind = kind.storage_type
    if _features_depth(kind):
        return _features_depth(kind) in (2, 3)
    return _is_image(kind.value_type if is_list(kind) else kind)


def can_hold_videos(kind: pa.DataType) -> bool:
    """Whether a column of this type can hold videos, one or several a row."""
    if isinstance(kind, pa.BaseExtensionType):
        kind = kind.storage_type
    return _is_image(kind.value_type if is_list(kind) else kind)


def _is_image(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_struct(kind):
        forms = {"bytes": is_bytes, "path": is_text}
        fields = [field for field in kind if field.name in forms]
        return bool(fields) and all(pa.types.is_null(f.type) or forms[f.name](f.type) for f in fields)
    return pa.types.is_null(kind) or is_bytes(kind) or is_text(kind)


def can_hold_paths(kind: pa.DataType) -> bool:
    """Whether a column of this type can hold images by their paths."""
    if isinstance(kind, pa.BaseExtensionType):
        kind = kind.storage_type
    if is_list(kind):
        kind = kind.value_type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_struct(kind):
        return any(field.name == "path" and is_text(field.type) for field in kind)
    return is_text(kind)


def image_cells(column: pa.Array) -> list[Any]:
    """Convert the image column to the cells that `MediaReader` reads.

    Returns:
        Python values, or Arrow scalars for a column of precomputed features.
    """
    if isinstance(column, pa.ExtensionArray):
        column = column.storage
    # Nested lists of numbers stay in Arrow: as Python objects they take thirty times the memory.
    return list(column) if _features_depth(column.type) else column.to_pylist()


def images_in(cell: Any) -> list[Any]:
    """List the images of a cell; empty for null, for a struct of nulls, and for precomputed features."""
    if cell is None or isinstance(cell, pa.Scalar):
        return []
    if isinstance(cell, list):
        return cell
    return [] if content_of(cell) is None else [cell]


def content_of(item: Any) -> Any:
    """Unwrap an image to bytes or text; of a struct, bytes come before the path.

    Returns:
        None for null and for a struct whose `bytes` and `path` are null; a struct that holds its image in any other way
        as it is.
    """
    if not isinstance(item, dict):
        return item
    encoded, path = item.get("bytes"), item.get("path")
    if encoded is None and path is None:
        has_fields = "bytes" in item or "path" in item
        return None if has_fields and not any(isinstance(value, bytes | str) for value in item.values()) else item
    if encoded is None:
        return path if isinstance(path, str) else item
    return encoded if isinstance(encoded, bytes) else item


def _features_depth(kind: pa.DataType) -> int:
    """Number of nested lists around the numbers of a column of features; 0 for any other column."""
    depth = 0
    while is_list(kind):
        depth, kind = depth + 1, kind.value_type
    return depth if pa.types.is_floating(kind) or pa.types.is_integer(kind) else 0


def read_features(cell: pa.Scalar) -> list[np.ndarray]:
    """Read the precomputed features of a row's images.

    Args:
        cell: list<list<number>> for one image, list<list<list<number>>> for several; null for none.

    Returns:
        For each image an array of shape (features, hidden size) with the dtype of the column.

    Raises:
        MediaError: `features`, for nulls, other nesting, or rows of different lengths.
    """
    if not cell.is_valid:
        return []
    depth = _features_depth(cell.type)
    if depth == 3:
        return [array for image in cell.values for array in read_features(image)]
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
