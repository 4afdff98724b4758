"""The cells of the image column: which images a cell holds, and what each is given by.

An image is bytes, a path, a URL, or a struct of bytes and path, as in Hugging Face data sets. A column of nested lists
of numbers holds precomputed image features instead.
"""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from run_batch.io.media.errors import MediaError


def image_cells(column: pa.Array) -> list[Any]:
    """The cells of the image column, as MediaReader takes them."""
    if isinstance(column, pa.ExtensionArray):
        column = column.storage
    # Nested lists of numbers stay in Arrow: as Python objects they would take thirty times the memory.
    return list(column) if _features_depth(column.type) else column.to_pylist()


def images_in(cell: Any) -> list[Any]:
    """The images of a cell, one by one."""
    if cell is None or isinstance(cell, pa.Scalar):
        return []
    if isinstance(cell, list):
        return cell
    empty = isinstance(cell, dict) and cell.get("bytes") is None and cell.get("path") is None
    return [] if empty else [cell]


def content_of(item: Any) -> Any:
    """What an image is given by: bytes, a path or a URL."""
    if not isinstance(item, dict):
        return item
    return item["bytes"] if item.get("bytes") is not None else item.get("path")


def _features_depth(kind: pa.DataType) -> int:
    """How many lists deep the numbers of a column of features lie; 0 for a column of anything else."""
    depth = 0
    while pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        depth, kind = depth + 1, kind.value_type
    return depth if pa.types.is_floating(kind) or pa.types.is_integer(kind) else 0


def read_features(cell: pa.Scalar) -> list[bytes | np.ndarray]:
    """One array of features, (features, hidden size), or several of them."""
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
