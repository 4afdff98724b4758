"""What is known of Parquet files without reading their rows.

It comes from their footers, or from an index: JSON in which an earlier process recorded what the footers say, so that a
thousand processes that open the same input need not read them all.
"""

import base64
import contextlib
import hashlib
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from run_batch.io.inputs.columns import Columns
from run_batch.io.inputs.input_files import InputFiles
from run_batch.io.inputs.read_errors import unreachable
from run_batch.io.inputs.source import DamagedInputError, InputError
from run_batch.io.transient import describe, may_pass, retry

# What is read at once of each column: a request to a remote file system costs the time of megabytes.
_LOCAL_BUFFER_BYTES = 1 << 20
_REMOTE_BUFFER_BYTES = 8 << 20
_SMALL_GROUP_BYTES = 32 << 20


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


def open_parquet(
    files: InputFiles, path: str, metadata: pq.FileMetaData | None = None, whole_groups: bool = False
) -> pq.ParquetFile:
    """Open one file and read its footer, but no rows.

    Args:
        metadata: its footer, where that is known already.
        whole_groups: read a row group at once, in as few requests as possible; page by page when left out.

    Raises:
        OSError: the file cannot be read.
        pa.ArrowException: the file is no Parquet file, or is damaged.
        InputError: the file system cannot be reached, or refuses.
    """

    def open_once() -> pq.ParquetFile:
        # Verifies the checksums of pages; most writers leave them out.
        return pq.ParquetFile(
            files.open(path) if files.filesystem else path,
            metadata=metadata,
            buffer_size=_REMOTE_BUFFER_BYTES if files.filesystem else _LOCAL_BUFFER_BYTES,
            pre_buffer=whole_groups,
            page_checksum_verification=True,
        )

    return open_once() if files.filesystem else retry(open_once)


def open_rows(files: InputFiles, path: str) -> pq.ParquetFile:
    """Open one file to read its rows: page by page, but by whole row groups where these are small and requests slow.

    Raises the errors of `open_parquet`.
    """
    parquet = open_parquet(files, path)
    if files.filesystem is None:
        return parquet
    metadata = parquet.metadata
    groups = (metadata.row_group(g).total_byte_size for g in range(metadata.num_row_groups))
    if max(groups, default=0) > _SMALL_GROUP_BYTES:
        return parquet
    parquet.close(force=True)
    return open_parquet(files, path, metadata, whole_groups=True)


def read_footers(files: InputFiles) -> list[FileFooter]:
    """Read the footers of all files, in the order of `files.paths`.

    Raises:
        InputError: a file does not exist, or is no Parquet file.
        DamagedInputError: a file begins as a Parquet file and is truncated or damaged.
        UnreachableInputError: storage or network fail in a way that may pass.
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
        raise _footer_error(files, path, error) from error


def _footer_error(files: InputFiles, path: str, error: Exception) -> InputError:
    if may_pass(error):
        return unreachable(f"input.path: {path}", error)
    if isinstance(error, PermissionError):
        return InputError(f"input.path: {path} cannot be read: {describe(error)}")
    kind = DamagedInputError if _begins_as_parquet(files, path) else InputError
    return kind(f"input.path: {path} cannot be read as Parquet: {error}")


def _begins_as_parquet(files: InputFiles, path: str) -> bool:
    with contextlib.closing(files.open(path)) as file:
        return bool(file.read(4) == b"PAR1")


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
