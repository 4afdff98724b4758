"""What the footers of Parquet files tell without reading their rows."""

import hashlib
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pyarrow.parquet as pq

from run_batch.io.inputs.file_content import check_is, read_head
from run_batch.io.inputs.file_format import FileFacts
from run_batch.io.inputs.input_files import InputFiles
from run_batch.io.inputs.read_errors import unread_file
from run_batch.io.inputs.source import DamagedInputError, InputError
from run_batch.io.transient import may_pass, retry

# What is read at once of each column: a request to a remote file system costs the time of megabytes.
_LOCAL_BUFFER_BYTES = 1 << 20
_REMOTE_BUFFER_BYTES = 8 << 20
_SMALL_GROUP_BYTES = 32 << 20


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


def read_footers(files: InputFiles) -> list[FileFacts]:
    """Read the footers of all files, in the order of `files.paths`.

    Raises:
        InputError: a file does not exist, or is of another format.
        DamagedInputError: a file is empty, truncated or damaged.
        LostInputError: the storage of a file fails.
        UnreachableInputError: storage or network fail in a way that may pass.
    """
    with ThreadPoolExecutor(max_workers=16) as pool:
        return list(pool.map(lambda path: read_footer(files, path), files.paths))


def read_footer(files: InputFiles, path: str) -> FileFacts:
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
            return FileFacts(path, files.name(path), size, changed, file.schema_arrow, rows, digest)
    except FileNotFoundError:
        raise InputError(f"input.path: {path}: no such file") from None
    except (OSError, pa.ArrowException) as error:
        raise _footer_error(files, path, error) from error


def _footer_error(files: InputFiles, path: str, error: Exception) -> InputError:
    if may_pass(error) or (isinstance(error, OSError) and error.errno is not None):
        return unread_file(path, error)
    head = read_head(files, path)
    if head[:4] != b"PAR1":
        check_is("parquet", "a Parquet file", path, head)
    return DamagedInputError(
        f"input.path: {path} cannot be read as Parquet: {' '.join(str(error).split())}; put a good copy in its place"
    )
