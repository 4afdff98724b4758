"""The names of the image files of a folder, as one Arrow array: of a million, Python's own objects would take hundreds
of megabytes.
"""

import heapq
import os
from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from run_batch.io.inputs.image_names import is_image_name
from run_batch.io.inputs.local_files import is_data_name
from run_batch.io.inputs.source import InputError


def list_images(root: str) -> pa.Array:
    """The paths of the image files of a folder and its sub-folders, relative to it, sorted; large_string.

    Links to folders are followed, each folder once.

    Raises:
        OSError: a folder cannot be listed.
        InputError: a link leads nowhere, or the name of a file is not UTF-8.
    """
    chunks = [as_array(names, root) for names in _by_folder(root)]
    return in_order(pa.chunked_array(chunks, pa.large_string()).combine_chunks())


def as_array(names: Sequence[str], root: str) -> pa.Array:
    """Names as an Arrow array.

    Raises:
        InputError: a name is not UTF-8.
    """
    try:
        return pa.array(names, pa.large_string())
    except UnicodeEncodeError as error:
        raise InputError(f"input.path: in {root}, the name of {error.object!a} is not UTF-8; rename it") from None


def in_order(names: pa.Array) -> pa.Array:
    """The names sorted, by their bytes."""
    return names.take(pc.sort_indices(names))


def _by_folder(root: str) -> Iterator[list[str]]:
    """The images of each folder, by their paths below the root."""
    folders, links, seen = [""], list[str](), set[str]()
    while folders or links:
        # A folder that is also behind a link keeps its own path.
        folder = folders.pop() if folders else heapq.heappop(links)
        place = os.path.join(root, folder)
        real = os.path.realpath(place)
        if real in seen:
            continue
        seen.add(real)
        names = list[str]()
        with os.scandir(place) as entries:
            for entry in entries:
                if not is_data_name(entry.name):
                    continue
                name = f"{folder}/{entry.name}" if folder else entry.name
                if entry.is_dir():
                    heapq.heappush(links, name) if entry.is_symlink() else folders.append(name)
                elif is_image_name(entry.name):
                    _check_link(entry)
                    names.append(name)
        yield names


def _check_link(entry: os.DirEntry[str]) -> None:
    if entry.is_symlink() and not os.path.exists(entry.path):
        raise InputError(f"input.path: {entry.path} is a link that leads nowhere; mend or remove it")
