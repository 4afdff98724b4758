"""A folder or glob of image files without a table: a row is a file, its path is its id and its image."""

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import blake3
import pyarrow as pa
import pyarrow.compute as pc

from run_batch.io.inputs.image_listing import as_array, in_order, list_images
from run_batch.io.inputs.input_files import InputFiles
from run_batch.io.inputs.input_parts import InputPart
from run_batch.io.inputs.source import InputError, RowBatch
from run_batch.io.inputs.splits import asked_rows, choose_files, splits_of
from run_batch.io.transient import retry

# `label` is the name of the folder that a file is in, as `datasets` has it; null for files in the input's own folder.
SCHEMA = pa.schema([("file_name", pa.string()), ("image", pa.string()), ("label", pa.string())])
_HASHED_AT_ONCE = 1 << 16
_LABEL = r"(?:^|/)(?P<label>[^/]+)/[^/]+$"


class ImageFolderSource:
    """Image files as rows of `file_name`, `image` and `label`, in the order of their paths."""

    def __init__(self, files: InputFiles, index: bytes = b"", split: str | None = None) -> None:
        """List the files.

        Args:
            files: those that a glob or a list chose; of a folder, all images are listed anew.
            index: `index` of an earlier source: a job that gets more files can tell that the old ones are the same.
            split: the split to read, or parts of splits; folders that are called like splits make them.

        Raises:
            OSError: a folder cannot be listed.
            InputError: there is no image, no such split, or the files are not on a local file system.
        """
        if files.filesystem is not None:
            raise InputError(
                f"input.path {files.root}: images are read from local and shared file systems alone; mount the "
                "storage, or pack them into WebDataset tar shards or Parquet files"
            )
        self.schema = SCHEMA
        self.unusable: Mapping[str, str] = {}
        self.folder: Path | None = Path(files.root)
        names = retry(lambda: list_images(files.root)) if files.is_folder else _chosen(files)
        if not len(names):
            raise InputError(f"input.path {files.root}: no image file there")
        self._names = _of_split(names, split)
        self.num_rows = len(self._names)
        self.parts = [self._part(rows) for rows in _cut(index, self.num_rows)]

    @property
    def index(self) -> bytes:
        """After which files the job has got more; see Source.index."""
        return json.dumps({"images": [part.rows for part in self.parts]}).encode()

    def _part(self, rows: range) -> InputPart:
        digest = blake3.blake3()
        for start in range(rows.start, rows.stop, _HASHED_AT_ONCE):
            names = self._names[start : min(start + _HASHED_AT_ONCE, rows.stop)].to_pylist()
            digest.update("".join(f"{name}\0" for name in names).encode())
        return InputPart(f"the list of images {rows.start + 1:,} to {rows.stop:,}", digest.hexdigest(), 0, len(rows))

    def cursor(self, columns: Sequence[str], batch_rows: int) -> "ImageFolderCursor":
        """Make a cursor; see Source.cursor."""
        return ImageFolderCursor(self._names, columns, batch_rows)

    def starts(self) -> Iterator[range]:
        """Every row; see Source.starts."""
        yield range(self.num_rows)

    def row_names(self, start: int, stop: int) -> list[str]:
        """The paths of files start..stop-1; see Source.row_names."""
        names: list[str] = self._names[start:stop].to_pylist()
        return names


class ImageFolderCursor:
    """Reads rows of a list that is in memory."""

    def __init__(self, names: pa.Array, columns: Sequence[str], batch_rows: int) -> None:
        """Read nothing yet."""
        self._names, self._batch_rows = names, batch_rows
        self._schema = pa.schema([SCHEMA.field(column) for column in columns])

    def read(self, start: int, stop: int) -> Iterator[RowBatch]:
        """Read rows start..stop-1 in batches; see Cursor.read."""
        for low in range(start, stop, self._batch_rows):
            names = self._names[low : min(low + self._batch_rows, stop)].cast(pa.string())
            arrays = [labels_of(names) if field.name == "label" else names for field in self._schema]
            yield RowBatch(low, pa.RecordBatch.from_arrays(arrays, schema=self._schema))

    def close(self) -> None:
        """Nothing is open; see Cursor.close."""


def labels_of(names: pa.Array) -> pa.Array:
    """The names of the folders that files are in."""
    return pc.struct_field(pc.extract_regex(names, _LABEL), "label")


def _chosen(files: InputFiles) -> pa.Array:
    names = as_array([files.name(path) for path in files.paths], files.root)
    return names if files.is_list else in_order(names)


def _cut(index: bytes, rows: int) -> list[range]:
    """The rows in pieces: those that an index names, and the rest."""
    try:
        sizes: list[int] = json.loads(index)["images"]
        stops = [sum(sizes[: i + 1]) for i in range(len(sizes))]
    except (ValueError, TypeError, KeyError):
        stops = []
    ends = [0, *(stop for stop in stops if 0 < stop < rows), rows]
    return [range(start, stop) for start, stop in pairwise(ends)]


def _of_split(names: pa.Array, split: str | None) -> pa.Array:
    """The files of the split that a job asks for: folders alone tell it, for names of images rarely mean one."""
    folders = pc.replace_substring_regex(names, r"[^/]*$", "").dictionary_encode()
    paths = [f"{folder}x" for folder in folders.dictionary.to_pylist()]
    chosen = choose_files(paths, splits_of(paths, ""), split)
    if split is None or not splits_of(paths, ""):
        return names
    places = {name: pc.is_in(folders.indices, pa.array(found, pa.int32())) for name, found in chosen.items()}
    rows = {name: names.filter(place) for name, place in places.items()}
    asked = asked_rows(split, {name: len(found) for name, found in rows.items()})
    pieces = [rows[name][first:last] for name, first, last in asked]
    return pa.chunked_array(pieces, pa.large_string()).combine_chunks()
