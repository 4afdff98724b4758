"""What is known of Parquet files without reading their rows.

It comes from their footers, or from an index: JSON in which an earlier process recorded what the footers say, so that a
thousand processes that open the same input need not read them all.
"""

import base64
import hashlib
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from run_batch.io.inputs.columns import Columns
from run_batch.io.inputs.input_files import InputFiles
from run_batch.io.inputs.source import DamagedInputError, InputError

# What is read at once of each column: a request to a remote file system costs the time of megabytes.
_LOCAL_BUFFER_BYTES = 1 << 20
_REMOTE_BUFFER_BYTES = 8 << 20


@dataclass(frozen=True, slots=True)
class FileFooter:
    """What the footer and the file system tell of one file.

    Attributes:
        path: path of the file, as in `InputFiles.paths`.
        name: path relative to the root of the input.
        size: size of the file in bytes.
        changed: time of the last change in nanoseconds since the epoch; 0 on remote file systems.
        schema: the file's columns; of a recorded file, those of the whole input.
        row_groups: number of rows of each row group.
        digest: SHA-256 of the footer in hexadecimal; differs when the data differs.
        recorded: whether all this comes from an index and the file has not been opened yet.
    """

    path: str
    name: str
    size: int
    changed: int
    schema: pa.Schema
    row_groups: tuple[int, ...]
    digest: str
    recorded: bool = False

    @property
    def num_rows(self) -> int:
        """Number of rows of the file."""
        return sum(self.row_groups)


def open_parquet(files: InputFiles, path: str) -> pq.ParquetFile:
    """Open one file and read its footer, but no rows.

    Raises:
        OSError: the file cannot be read.
        pa.ArrowException: the file is no Parquet file, or is damaged.
    """
    source: Any = path
    buffer = _LOCAL_BUFFER_BYTES
    if files.filesystem is not None:
        # Columns are read in turns: what fsspec reads ahead for one is thrown away by the next, and read again.
        source = files.filesystem.open(path, "rb", block_size=buffer, cache_type="none")
        buffer = _REMOTE_BUFFER_BYTES
    # Page by page: with `pre_buffer`, all columns of a row group are read before its first row is there.
    # Verifies the checksums of pages; most writers leave them out.
    return pq.ParquetFile(source, buffer_size=buffer, pre_buffer=False, page_checksum_verification=True)


def read_footers(files: InputFiles) -> list[FileFooter]:
    """Read the footers of all files, in the order of `files.paths`.

    Raises:
        InputError: a file does not exist, or is no Parquet file.
        DamagedInputError: a file begins as a Parquet file and is truncated or damaged.
    """
    with ThreadPoolExecutor(max_workers=16) as pool:
        return list(pool.map(lambda path: read_footer(files, path), files.paths))


def read_footer(files: InputFiles, path: str) -> FileFooter:
    """Read the footer of one file; raises the errors of `read_footers`."""
    try:
        size, changed = files.state(path)
        with open_parquet(files, path) as file:
            rows = tuple(file.metadata.row_group(g).num_rows for g in range(file.metadata.num_row_groups))
            # The footer holds statistics and offsets, which differ when the data differs. Damage to a page leaves it
            # as it is, so that a good copy in the place of a damaged file is the same input.
            footer = pa.BufferOutputStream()
            file.metadata.write_metadata_file(footer)
            digest = hashlib.sha256(footer.getvalue()).hexdigest()
            return FileFooter(path, files.name(path), size, changed, file.schema_arrow, rows, digest)
    except FileNotFoundError:
        raise InputError(f"input.path: {path}: no such file") from None
    except (OSError, pa.ArrowException) as error:
        kind = DamagedInputError if _begins_as_parquet(files, path) else InputError
        raise kind(f"input.path: {path} cannot be read as Parquet: {error}") from None
    except Exception as error:
        if files.filesystem is None:
            raise
        raise InputError(f"input.path: {path} cannot be read: {type(error).__name__}: {error}") from None


def _begins_as_parquet(files: InputFiles, path: str) -> bool:
    with open(path, "rb") if files.filesystem is None else files.filesystem.open(path, "rb") as file:
        return file.read(4) == b"PAR1"


def dump_index(footers: Sequence[FileFooter], columns: Columns) -> bytes:
    """Record footers, and the columns of all files, as an index that `load_index` reads; JSON."""
    files = [[f.name, f.size, f.changed, f.row_groups, f.digest] for f in footers]
    schema = base64.b64encode(columns.schema.serialize().to_pybytes()).decode()
    content = {"schema": schema, "unusable": dict(columns.unusable), "files": files}
    return json.dumps(content, separators=(",", ":")).encode()


def load_index(files: InputFiles, index: bytes) -> tuple[list[FileFooter], Columns] | None:
    """Read what an index recorded; None if the index is damaged or lists other file names."""
    try:
        content = json.loads(index)
        schema = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(content["schema"])))
        columns = Columns(schema, content["unusable"])
        footers = [
            FileFooter(path, name, size, changed, schema, tuple(row_groups), digest, recorded=True)
            for path, (name, size, changed, row_groups, digest) in zip(files.paths, content["files"], strict=True)
        ]
    except (ValueError, TypeError, KeyError, pa.ArrowException):
        return None
    return (footers, columns) if all(footer.name == files.name(footer.path) for footer in footers) else None
