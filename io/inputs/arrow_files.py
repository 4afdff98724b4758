"""Arrow files, Arrow streams and Feather files: mapped into memory, and read in place, a record batch at a time."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.ipc as ipc

from run_batch.io.files import sample_open_file
from run_batch.io.inputs.columns import Columns, cast_batches
from run_batch.io.inputs.file_content import check_is, read_head
from run_batch.io.inputs.file_format import FileFacts, OpenFile
from run_batch.io.inputs.file_rows import FileRows
from run_batch.io.inputs.first_look import look_at_each, looking_at
from run_batch.io.inputs.input_files import InputFiles
from run_batch.io.inputs.partitions import columns_of_files, constants_of, with_constants
from run_batch.io.inputs.source import DamagedInputError
from run_batch.io.transient import retry

_MAGIC = b"ARROW1"
_BATCH_BYTES = 64 << 20
# Blocks of 64 KiB by which files are told apart: nothing in their metadata changes with the data.
_SAMPLES = 16


class ArrowFormat:
    """Arrow files and streams, whose record batches are where reading can begin; see FileFormat."""

    name = "Arrow"
    suffixes = (".arrow", ".feather", ".ipc", ".arrows")

    def look_at_all(self, files: InputFiles) -> list[FileFacts]:
        """Look at all files."""
        return look_at_each(files, self.look_at)

    def look_at(self, files: InputFiles, path: str) -> FileFacts:
        """Count the rows of each record batch, and take samples of the file."""
        with looking_at(files, path) as (size, changed):
            head = read_head(files, path)
            check_is("arrow", "an Arrow file", path, head)
            if not size:
                raise DamagedInputError(f"input.path: {path} is empty, and no Arrow file; put a good copy in its place")
            with contextlib.closing(files.open(path)) as file:
                digest = sample_open_file(file, size, _SAMPLES).hex()
            with contextlib.closing(_open(files, path)) as file:
                schema = _reader(file, head, None).schema
                reader = _reader(file, head, _places(file, head, ()))
                rows = tuple(batch.num_rows for batch in _batches(reader))
            is_seekable = files.filesystem is None or head.startswith(_MAGIC)
            return FileFacts(path, files.name(path), size, changed, schema, rows, digest, is_seekable=is_seekable)

    def columns(self, facts: Sequence[FileFacts]) -> Columns:
        """The columns of all files, in types that hold the values of each, and those that names of folders make."""
        return columns_of_files(facts)

    def open(self, files: InputFiles, facts: FileFacts, schema: pa.Schema, batch_rows: int) -> OpenFile:
        """Open a file to read some columns of it; what else it holds is not touched."""
        file, head = _open(files, facts.path), read_head(files, facts.path)
        constants = constants_of(facts.name, _reader(file, head, None).schema.names)
        batches = _Batches(file, head, _places(file, head, [name for name in schema.names if name not in constants]))

        def read(group: int) -> Iterator[pa.RecordBatch]:
            cut = (with_constants(batch, constants) for batch in _cut(batches.read(group), batch_rows))
            return cast_batches(cut, schema, facts.path)

        return OpenFile(FileRows(facts.row_groups, read), file.close)


class _Batches:
    """The record batches of an open file; of a stream, those before one are passed over, which copies nothing."""

    def __init__(self, file: Any, head: bytes, places: Sequence[int] | None) -> None:
        """Read the schema."""
        self._file, self._head, self._places = file, head, places
        self._reader = _reader(file, head, places)
        self._next = 0

    def read(self, number: int) -> pa.RecordBatch:
        """A record batch."""
        if isinstance(self._reader, ipc.RecordBatchFileReader):
            return _checked(self._reader.get_batch(number))
        if number < self._next:
            self._reader, self._next = _reader(self._file, self._head, self._places), 0
        while True:
            batch = self._reader.read_next_batch()
            self._next += 1
            if self._next > number:
                return _checked(batch)


def _checked(batch: pa.RecordBatch) -> pa.RecordBatch:
    batch.validate()
    return batch


def _open(files: InputFiles, path: str) -> Any:
    if files.filesystem is None:
        return retry(lambda: pa.memory_map(path))
    return pa.PythonFile(files.open(path), "r")


def _reader(file: Any, head: bytes, places: Sequence[int] | None) -> Any:
    """A reader of the columns at some places; of all without."""
    file.seek(0)
    options = ipc.IpcReadOptions(included_fields=list(places or ()))
    return (ipc.open_file if head.startswith(_MAGIC) else ipc.open_stream)(file, options=options)


def _batches(reader: Any) -> Iterator[pa.RecordBatch]:
    if isinstance(reader, ipc.RecordBatchFileReader):
        return (reader.get_batch(number) for number in range(reader.num_record_batches))
    return iter(reader)


def _places(file: Any, head: bytes, names: Sequence[str]) -> Sequence[int] | None:
    """The places of columns, where the others would be decompressed for nothing; None where all are read in place."""
    reader = _reader(file, head, None)
    first = next((batch for batch in _batches(reader) if batch.num_rows), None)
    if isinstance(file, pa.MemoryMappedFile) and (first is None or _is_in_place(file, first)):
        return None
    places = [place for name in names for place in reader.schema.get_all_field_indices(name)]
    return places or _cheapest(reader.schema)


def _is_in_place(file: pa.MemoryMappedFile, batch: pa.RecordBatch) -> bool:
    """Whether a record batch is part of the mapped file. pyarrow copies even what is not compressed once it is to read
    some of the columns only.
    """
    file.seek(0)
    mapped = file.read_buffer()
    buffers = [buffer for column in batch.columns for buffer in column.buffers() if buffer is not None and buffer.size]
    return all(mapped.address <= buffer.address < mapped.address + mapped.size for buffer in buffers)


def _cheapest(schema: pa.Schema) -> Sequence[int]:
    """The place of a column of small values, for compressed ones are decompressed where they are looked at."""
    widths = ((place, field.type) for place, field in enumerate(schema))
    small = next((place for place, kind in widths if pa.types.is_primitive(kind)), 0)
    return [small] if len(schema) else []


def _cut(batch: pa.RecordBatch, batch_rows: int) -> Iterator[pa.RecordBatch]:
    """A record batch in pieces of so many rows and of about 64 MiB at most, or of one row."""
    rows = max(1, min(batch_rows, _BATCH_BYTES * batch.num_rows // max(batch.nbytes, 1)))
    return (batch.slice(start, rows) for start in range(0, batch.num_rows, rows))
