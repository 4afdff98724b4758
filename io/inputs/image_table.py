"""A folder of images with a table beside them, `metadata.jsonl`, `.csv` or `.parquet`, as `datasets` has image folders.

A row is a row of the table, which names its image in the column `file_name`, relative to the table.
"""

import posixpath
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import pyarrow as pa
import pyarrow.compute as pc

from run_batch.io.inputs.columns import Columns
from run_batch.io.inputs.file_format import FileFacts, FileFormat, OpenFile, Rows
from run_batch.io.inputs.image_listing import list_images
from run_batch.io.inputs.input_files import InputFiles
from run_batch.io.inputs.source import InputError, Source
from run_batch.io.transient import retry

IMAGE, _FILE_NAME = pa.field("image", pa.string()), "file_name"
_BATCH_ROWS = 1 << 14
_NAMED = 3


def is_image_table_name(name: str) -> bool:
    """Whether a file of this name is the table of a folder of images, if there are any beside it."""
    return posixpath.basename(name).lower() in ("metadata.jsonl", "metadata.csv", "metadata.parquet")


class ImageTableFormat:
    """Tables of images, with a column `image` before their own; see FileFormat."""

    def __init__(self, kind: FileFormat) -> None:
        """Of the tables' own format."""
        self._kind, self.name, self.suffixes = kind, f"{kind.name} beside images", kind.suffixes

    def look_at_all(self, files: InputFiles) -> list[FileFacts]:
        """Look at all tables."""
        return self._kind.look_at_all(files)

    def look_at(self, files: InputFiles, path: str) -> FileFacts:
        """Look at a table."""
        return self._kind.look_at(files, path)

    def columns(self, facts: Sequence[FileFacts]) -> Columns:
        """The columns of the tables, and that of the images.

        Raises:
            InputError: the tables name no images, or have a column of images already.
        """
        columns = self._kind.columns(facts)
        names = columns.schema.names
        if _FILE_NAME not in names or IMAGE.name in names or _FILE_NAME in columns.unusable:
            why = "no usable column file_name" if IMAGE.name not in names else "a column image of its own"
            raise InputError(
                f"input.path: {facts[0].path} lies beside images and has {why}; columns: {', '.join(names)}. Name the "
                'table itself in input.path to read it as it is, or set input.format = "images" for the images alone'
            )
        return Columns(columns.schema.insert(0, IMAGE), columns.unusable)

    def open(self, files: InputFiles, facts: FileFacts, schema: pa.Schema, batch_rows: int) -> OpenFile:
        """Open a table."""
        if IMAGE.name not in schema.names:
            return self._kind.open(files, facts, schema, batch_rows)
        read = pa.schema([field for field in schema if field.name != IMAGE.name])
        if _FILE_NAME not in read.names:
            read = read.append(pa.field(_FILE_NAME, pa.string()))
        opened = self._kind.open(files, facts, read, batch_rows)
        return OpenFile(_WithImages(opened.rows, posixpath.dirname(facts.name), schema), opened.close)


@dataclass(frozen=True, slots=True)
class _WithImages:
    """The rows of a table with the paths of their images.

    Attributes:
        rows: those of the table.
        folder: of the table, relative to the root of the input.
        schema: the columns that are asked for.
    """

    rows: Rows
    folder: str
    schema: pa.Schema

    def read(self, first: int, last: int) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Rows first..last-1; see FileRows.read."""
        for row, batch in self.rows.read(first, last):
            images = _joined(self.folder, batch.column(_FILE_NAME).cast(pa.string()))
            columns = [images if field.name == IMAGE.name else batch.column(field.name) for field in self.schema]
            yield row, pa.RecordBatch.from_arrays(columns, schema=self.schema)


def _joined(folder: str, names: pa.Array) -> pa.Array:
    return pc.binary_join_element_wise(folder, names, "/") if folder else names


def check_images_exist(source: Source, root: str) -> None:
    """Refuse a table that names images which are not there.

    Raises:
        OSError: a folder cannot be listed.
        InputError: names the first of them.
    """
    listed = retry(lambda: list_images(root))
    missing = list(islice(_missing(source, listed), _NAMED + 1))
    if missing:
        more = ", …" if len(missing) > _NAMED else ""
        shown = ", ".join(f"{name} (row {row})" for row, name in missing[:_NAMED])
        raise InputError(
            f"input.path: column file_name names images that are not below {root}: {shown}{more}. Put them there, or "
            "take their rows out of the table"
        )


def _missing(source: Source, listed: pa.Array) -> Iterator[tuple[int, str]]:
    for batch in source.cursor([IMAGE.name], _BATCH_ROWS).read(0, source.num_rows):
        names = batch.records.column(0)
        unknown = pc.and_(pc.invert(pc.is_in(names.cast(pa.large_string()), listed)), pc.is_valid(names))
        for place in pc.indices_nonzero(unknown).to_pylist():
            name = names[place].as_py()
            # Another way to write a path that is there is none that is missing.
            if not pc.is_in(pa.scalar(posixpath.normpath(name), pa.large_string()), listed).as_py():
                yield batch.start + place, name
