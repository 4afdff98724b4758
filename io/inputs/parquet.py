"""Parquet files: a row group is where reading can begin, and footers tell all that there is to know before."""

from collections.abc import Callable, Iterator, Sequence

import pyarrow as pa

from run_batch.io.inputs.columns import Columns, cast_batches, unify_columns
from run_batch.io.inputs.file_format import FileFacts, OpenFile
from run_batch.io.inputs.file_rows import FileRows
from run_batch.io.inputs.file_source import FileSource
from run_batch.io.inputs.input_files import InputFiles, find_files
from run_batch.io.inputs.parquet_batches import read_group
from run_batch.io.inputs.parquet_footers import open_rows, read_footer, read_footers


class ParquetFormat:
    """Parquet files; see FileFormat."""

    name = "Parquet"
    suffixes = (".parquet",)

    def look_at_all(self, files: InputFiles) -> list[FileFacts]:
        """Read the footers of all files."""
        return read_footers(files)

    def look_at(self, files: InputFiles, path: str) -> FileFacts:
        """Read the footer of one file."""
        return read_footer(files, path)

    def columns(self, facts: Sequence[FileFacts]) -> Columns:
        """The columns of all files, in types that hold the values of each."""
        return unify_columns([(one.path, one.schema) for one in facts])

    def open(self, files: InputFiles, facts: FileFacts, schema: pa.Schema, batch_rows: int) -> OpenFile:
        """Open a file to read it page by page."""
        parquet = open_rows(files, facts.path)

        def read(group: int) -> Iterator[pa.RecordBatch]:
            return cast_batches(read_group(parquet, group, schema.names, batch_rows), schema, facts.path)

        return OpenFile(FileRows(facts.row_groups, read), lambda: parquet.close(force=True))


class ParquetSource(FileSource):
    """The rows of Parquet files, file after file in the order of their names."""

    def __init__(
        self,
        path: str,
        index: bytes = b"",
        split: str | None = None,
        name: str | None = None,
        leave_out: Callable[[str], bool] = lambda _: False,
    ) -> None:
        """Find the files and read their footers; see FileSource.

        Args:
            path: a file, folder or glob, or an fsspec URL of one.
            leave_out: whether a local file, given by its real path, is no part of the input.

        Raises:
            InputError: no such file, no Parquet file, no such configuration or split.
        """
        super().__init__(find_files(path, leave_out), ParquetFormat(), index, split, name)
