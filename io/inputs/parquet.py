"""Parquet files: a row group is where reading can begin, and footers tell all that there is to know before."""

from collections.abc import Callable, Iterator, Sequence

import pyarrow as pa

from run_batch.io.inputs.columns import Columns, cast_batches
from run_batch.io.inputs.file_format import FileFacts, OpenFile
from run_batch.io.inputs.file_rows import FileRows
from run_batch.io.inputs.file_source import FileSource
from run_batch.io.inputs.input_files import InputFiles, find_files
from run_batch.io.inputs.parquet_batches import read_group
from run_batch.io.inputs.parquet_footers import open_rows, read_footer, read_footers
from run_batch.io.inputs.partitions import columns_of_files, constants_of, with_constants


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
        """The columns of all files, in types that hold the values of each, and those that names of folders make."""
        return columns_of_files(facts)

    def open(self, files: InputFiles, facts: FileFacts, schema: pa.Schema, batch_rows: int) -> OpenFile:
        """Open a file to read it page by page."""
        parquet = open_rows(files, facts.path)
        constants = constants_of(facts.name, parquet.schema_arrow.names)
        names = [name for name in schema.names if name not in constants]

        def read(group: int) -> Iterator[pa.RecordBatch]:
            batches = read_group(parquet, group, names, batch_rows, lambda: files.open(facts.path))
            if len(names) < len(schema):
                batches = (with_constants(batch, constants) for batch in batches)
            return cast_batches(batches, schema, facts.path)

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
