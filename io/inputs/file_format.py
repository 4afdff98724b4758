"""What a format of files brings to an input: how a file is looked at once, and how its rows are read from then on.

All else, such as the order of files, splits, cursors and the check for changes, is the same for all: file_source.py.
"""

import base64
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import pyarrow as pa

from run_batch.io.inputs.columns import Columns
from run_batch.io.inputs.input_files import InputFiles


@dataclass(frozen=True, slots=True)
class FileFacts:
    """What is known of one file without reading its rows.

    Attributes:
        path: path of the file, as in `InputFiles.paths`.
        name: path relative to the root of the input.
        size: size of the file in bytes.
        changed: time of the last change in nanoseconds since the epoch; 0 on remote file systems.
        schema: the file's columns; of a recorded file, those of the whole input.
        row_groups: number of rows of each stretch of the file that can be read without what lies before it.
        digest: in hexadecimal; differs when the data differs.
        offsets: the byte at which each row group begins, in what is decompressed; empty where the file itself tells.
        is_seekable: whether reading can begin at any row group; of a compressed text, it begins with the file.
        recorded: whether all this comes from an index and the file has not been opened yet.
        content: what the format alone knows, beyond the schema; None of a recorded file.
    """

    path: str
    name: str
    size: int
    changed: int
    schema: pa.Schema
    row_groups: tuple[int, ...]
    digest: str
    offsets: tuple[int, ...] = ()
    is_seekable: bool = True
    recorded: bool = False
    content: Any = field(default=None, compare=False)

    @property
    def num_rows(self) -> int:
        """Number of rows of the file."""
        return sum(self.row_groups)


class Rows(Protocol):
    """The rows of one open file; those of FileRows are some."""

    def read(self, first: int, last: int) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Rows first..last-1; see FileRows.read."""
        ...


@dataclass(frozen=True, slots=True)
class OpenFile:
    """A file whose rows are read.

    Attributes:
        rows: reads on through them.
        close: closes the file.
    """

    rows: Rows
    close: Callable[[], None]


class FileFormat(Protocol):
    """A format of files.

    Attributes:
        name: as people call it.
        suffixes: how the names of such files end, in lower case; in a folder, no others are read.
    """

    @property
    def name(self) -> str: ...

    @property
    def suffixes(self) -> tuple[str, ...]: ...

    def look_at_all(self, files: InputFiles) -> list[FileFacts]:
        """Look at all files, in the order of `files.paths`; raises the errors of `look_at`."""
        ...

    def look_at(self, files: InputFiles, path: str) -> FileFacts:
        """Look at one file.

        Raises:
            InputError: it does not exist, or is of another format; the message names the line where it has lines.
            DamagedInputError: it is truncated or damaged.
            UnreachableInputError: storage or network fail in a way that may pass.
        """
        ...

    def columns(self, facts: Sequence[FileFacts]) -> Columns:
        """The columns of all files together."""
        ...

    def open(self, files: InputFiles, facts: FileFacts, schema: pa.Schema, batch_rows: int) -> OpenFile:
        """Open a file to read the columns of `schema`, in its types.

        Raises:
            OSError, pa.ArrowException, InputError: it cannot be opened.
        """
        ...


def dump_index(kind: FileFormat, files: InputFiles, facts: Sequence[FileFacts], columns: Columns) -> bytes:
    """Record what is known of files, and the columns of all of them, as an index that `load_index` reads; JSON."""
    schema = base64.b64encode(columns.schema.serialize().to_pybytes()).decode()
    content = {
        "format": kind.name,
        "schema": schema,
        "unusable": dict(columns.unusable),
        "files": [[f.name, f.size, f.changed, f.row_groups, f.digest, f.offsets, f.is_seekable] for f in facts],
        **({"commits": dict(files.commits)} if files.commits else {}),
    }
    return json.dumps(content, separators=(",", ":")).encode()


def load_index(kind: FileFormat, files: InputFiles, index: bytes) -> tuple[list[FileFacts], Columns] | None:
    """Read what an index recorded; None if the index is damaged, or is of another format or other file names."""
    try:
        content = json.loads(index)
        if content["format"] != kind.name:
            return None
        schema = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(content["schema"])))
        columns = Columns(schema, content["unusable"])
        facts = [
            FileFacts(path, name, size, changed, schema, tuple(groups), digest, tuple(offsets), seekable, recorded=True)
            for path, (name, size, changed, groups, digest, offsets, seekable) in zip(
                files.paths, content["files"], strict=True
            )
        ]
    except (ValueError, TypeError, KeyError, pa.ArrowException):
        return None
    return (facts, columns) if all(one.name == files.name(one.path) for one in facts) else None
