"""What is known of Parquet files without reading rows: from their footers, or from the index of an earlier run."""

import base64
import hashlib
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from run_batch.io.inputs.input_files import InputFiles
from run_batch.io.inputs.source import DamagedInputError, InputError

_READ_BUFFER_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class FileFooter:
    """What is known of one file.

    Attributes:
        path: of the file, as InputFiles has it.
        name: relative to the root of the input.
        size: bytes.
        changed: when the file was changed last, in nanoseconds since the epoch; 0 where that is not known.
        schema: the file's columns.
        row_groups: number of rows of each row group.
        digest: SHA-256 of the footer, as hexadecimal digits; differs if the data does.
        recorded: whether all this comes from an index, and the file has not been looked at yet.
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
        return sum(self.row_groups)


def open_parquet(files: InputFiles, path: str) -> pq.ParquetFile:
    """Open one file; its footer is read, no rows are."""
    source = path if files.filesystem is None else files.filesystem.open(path, "rb")
    # Pages that were written with a checksum are held against it; most writers leave it out.
    return pq.ParquetFile(source, buffer_size=_READ_BUFFER_BYTES, page_checksum_verification=True)


def read_footers(files: InputFiles) -> list[FileFooter]:
    """The footers of all files, in their order.

    Raises:
        InputError: a file is not there, or is no Parquet file.
        DamagedInputError: a file has been a Parquet file, and is damaged.
    """
    with ThreadPoolExecutor(max_workers=16) as pool:
        return list(pool.map(lambda path: read_footer(files, path), files.paths))


def read_footer(files: InputFiles, path: str) -> FileFooter:
    """The footer of one file; raises as `read_footers` does."""
    try:
        size, changed = files.state(path)
        with open_parquet(files, path) as file:
            rows = tuple(file.metadata.row_group(g).num_rows for g in range(file.metadata.num_row_groups))
            # Other data has other statistics and offsets. Damage to a page leaves the footer as it is: a good copy
            # in the place of a damaged file is the same input.
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


def check_same_columns(footers: Sequence[FileFooter]) -> None:
    """See that all files have the columns of the first one, with the same types.

    Raises:
        InputError: a column is missing in a file, or has another type.
    """
    for file in footers[1:]:
        for field in footers[0].schema:
            index = file.schema.get_field_index(field.name)
            found = "no such column" if index < 0 else str(file.schema.field(index).type)
            if found != str(field.type):
                raise InputError(
                    f"input.path: column {field.name} is {field.type} in {footers[0].path}, but {found} in "
                    f"{file.path}; all files of an input need the same columns"
                )


def dump_index(footers: Sequence[FileFooter]) -> bytes:
    """What is known of the files, as JSON that `load_index` reads."""
    files = [[f.name, f.size, f.changed, f.row_groups, f.digest] for f in footers]
    schema = base64.b64encode(footers[0].schema.serialize().to_pybytes()).decode()
    return json.dumps({"schema": schema, "files": files}, separators=(",", ":")).encode()


def load_index(files: InputFiles, index: bytes) -> list[FileFooter]:
    """What an index tells of the files; empty if it is of other files, or damaged."""
    try:
        content = json.loads(index)
        schema = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(content["schema"])))
        footers = [
            FileFooter(path, name, size, changed, schema, tuple(row_groups), digest, recorded=True)
            for path, (name, size, changed, row_groups, digest) in zip(files.paths, content["files"], strict=True)
        ]
    except (ValueError, TypeError, KeyError, pa.ArrowException):
        return []
    return footers if all(footer.name == files.name(footer.path) for footer in footers) else []
