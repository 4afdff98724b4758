"""Rows of Parquet files: one file, a folder, a glob, or a URL of a file system that fsspec knows."""

import base64
import difflib
import glob
import hashlib
import json
import os
import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from run_batch.io.inputs.source import DamagedInputError, InputError, RowBatch, is_bare_name

_READ_BUFFER_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class _File:
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


class ParquetSource:
    """The rows of some Parquet files, file after file in order of their names."""

    def __init__(self, path: str, index: bytes = b"") -> None:
        """Find the files and read their footers.

        Args:
            path: a file, folder or glob, or an fsspec URL of one.
            index: `index` of a source that was opened before: while the names of the files are the same, footers are
                not read before their file is, and are held against it then.

        Raises:
            InputError: no such file, no Parquet file, or files whose columns differ.
        """
        self._filesystem: Any = None
        if "://" in path:
            import fsspec

            try:
                self._filesystem, path = fsspec.core.url_to_fs(path)
                paths, root = self._find_remote(path)
            except InputError:
                raise
            except Exception as error:  # every file system has errors of its own
                raise InputError(f"input.path {path}: {type(error).__name__}: {error}") from None
        else:
            paths, root = self._find(path)
        self._root = root
        self._files = self._recorded(paths, index)
        if not self._files:
            with ThreadPoolExecutor(max_workers=16) as pool:
                self._files = list(pool.map(self._open_footer, paths))
        self.schema = self._files[0].schema
        for file in self._files[1:]:
            self._check_same_columns(file)
        self._starts = [0, *accumulate(file.num_rows for file in self._files)]
        self.num_rows = self._starts[-1]
        self.folder = None if self._filesystem else Path(root)
        self.fingerprint = hashlib.sha256(
            "\n".join(f"{f.name} {f.size} {f.digest}" for f in self._files).encode()
        ).hexdigest()

    @property
    def index(self) -> bytes:
        """What is known of the files, for processes that open the same input later; JSON."""
        files = [[f.name, f.size, f.changed, f.row_groups, f.digest] for f in self._files]
        schema = base64.b64encode(self.schema.serialize().to_pybytes()).decode()
        return json.dumps({"schema": schema, "files": files}, separators=(",", ":")).encode()

    def _recorded(self, paths: list[str], index: bytes) -> list[_File]:
        """The files as an index has them; none if it is of other files, or damaged."""
        try:
            content = json.loads(index)
            schema = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(content["schema"])))
            files = [
                _File(path, name, size, changed, schema, tuple(row_groups), digest, recorded=True)
                for path, (name, size, changed, row_groups, digest) in zip(paths, content["files"], strict=True)
            ]
        except (ValueError, TypeError, KeyError, pa.ArrowException):
            return []
        return files if all(file.name == self._name(file.path) for file in files) else []

    def _name(self, path: str) -> str:
        # A query may be a signature: it is no part of the name, which rows without an id column are called by.
        return _without_query(path).removeprefix(self._root).lstrip("/")

    def _find(self, path: str) -> tuple[list[str], str]:
        place = Path(path)
        if any(c in path for c in "*?[") and not place.exists():
            found = sorted(p for p in glob.glob(path, recursive=True) if Path(p).is_file())
            found = [p for p in found if is_bare_name(Path(p).name)]
            root = os.path.dirname(re.split(r"[*?\[]", path)[0])
        elif place.is_dir():
            found = sorted(
                str(p) for p in place.rglob("*.parquet") if all(map(is_bare_name, p.relative_to(place).parts))
            )
            root = path
        elif place.is_file():
            found, root = [path], str(place.parent)
        elif place.exists():
            raise InputError(f"input.path {path} is neither a file nor a folder")
        else:
            raise InputError(f"input.path {path}: no such file or folder{_similar(place)}")
        if not found:
            raise InputError(f"input.path {path}: no Parquet file there")
        return found, root

    def _find_remote(self, path: str) -> tuple[list[str], str]:
        filesystem = self._filesystem
        if _without_query(path) != path:
            return [path], _without_query(path).rsplit("/", 1)[0]
        root = re.split(r"[*?\[]", path)[0].rsplit("/", 1)[0]
        if any(c in path for c in "*?["):
            found = sorted(filesystem.glob(path))
        elif filesystem.isdir(path):
            inside = {p: p.removeprefix(path).strip("/").split("/") for p in filesystem.find(path)}
            found = sorted(p for p, parts in inside.items() if all(map(is_bare_name, parts)))
            found, root = [p for p in found if p.endswith(".parquet")], path
        else:
            found = [path]
        found = [p for p in found if is_bare_name(p.rsplit("/", 1)[-1])]
        if not found:
            raise InputError(f"input.path {path}: no Parquet file there")
        return found, root

    def _open(self, path: str) -> pq.ParquetFile:
        source = path if self._filesystem is None else self._filesystem.open(path, "rb")
        # Pages that were written with a checksum are held against it; most writers leave it out.
        return pq.ParquetFile(source, buffer_size=_READ_BUFFER_BYTES, page_checksum_verification=True)

    def _state(self, path: str) -> tuple[int, int]:
        """Size, and when the file was changed last where the file system tells so cheaply."""
        if self._filesystem is not None:
            return self._filesystem.size(path), 0
        status = os.stat(path)
        return status.st_size, status.st_mtime_ns

    def _open_footer(self, path: str) -> _File:
        try:
            size, changed = self._state(path)
            with self._open(path) as file:
                rows = tuple(file.metadata.row_group(g).num_rows for g in range(file.metadata.num_row_groups))
                # Other data has other statistics and offsets. Damage to a page leaves the footer as it is: a good copy
                # in the place of a damaged file is the same input.
                footer = pa.BufferOutputStream()
                file.metadata.write_metadata_file(footer)
                digest = hashlib.sha256(footer.getvalue()).hexdigest()
                return _File(path, self._name(path), size, changed, file.schema_arrow, rows, digest)
        except FileNotFoundError:
            raise InputError(f"input.path: {path}: no such file") from None
        except (OSError, pa.ArrowException) as error:
            kind = DamagedInputError if self._begins_as_parquet(path) else InputError
            raise kind(f"input.path: {path} cannot be read as Parquet: {error}") from None
        except Exception as error:
            if self._filesystem is None:
                raise
            raise InputError(f"input.path: {path} cannot be read: {type(error).__name__}: {error}") from None

    def _begins_as_parquet(self, path: str) -> bool:
        with open(path, "rb") if self._filesystem is None else self._filesystem.open(path, "rb") as file:
            return file.read(4) == b"PAR1"

    def _check_same_columns(self, file: _File) -> None:
        for field in self.schema:
            index = file.schema.get_field_index(field.name)
            found = "no such column" if index < 0 else str(file.schema.field(index).type)
            if found != str(field.type):
                raise InputError(
                    f"input.path: column {field.name} is {field.type} in {self._files[0].path}, but {found} in "
                    f"{file.path}; all files of an input need the same columns"
                )

    def read(self, start: int, stop: int, columns: Sequence[str], batch_rows: int) -> Iterator[RowBatch]:
        """See Source.read."""
        for index, first, last in self._spans(start, stop):
            file = self._files[index]
            try:
                self._check_unchanged(index)
                yield from self._read_file(file, self._starts[index], first, last, columns, batch_rows)
                self._check_unchanged(index)
            except FileNotFoundError:
                raise DamagedInputError(f"{file.path} has gone; put it back and run the same command again") from None
            except (OSError, pa.ArrowException) as error:
                raise DamagedInputError(
                    f"{file.path} is damaged: {error}; put a good copy in its place and run the same command again"
                ) from None

    def _check_unchanged(self, index: int) -> None:
        file = self._files[index]
        if self._state(file.path) == (file.size, file.changed):
            return
        # The same data may have been copied anew since it was recorded.
        found = self._open_footer(file.path) if file.recorded else None
        if found is not None and found.digest == file.digest:
            self._files[index] = found
        else:
            raise DamagedInputError(
                f"{file.path} has changed since the job started; put the old file back and run the same command "
                "again, or start a new job"
            )

    def _read_file(
        self, file: _File, offset: int, first: int, last: int, columns: Sequence[str], batch_rows: int
    ) -> Iterator[RowBatch]:
        with self._open(file.path) as parquet:
            position = 0
            for group, rows in enumerate(file.row_groups):
                if position + rows > first and position < last:
                    batches = parquet.iter_batches(
                        batch_size=batch_rows, row_groups=[group], columns=list(columns), use_threads=False
                    )
                    yield from _clip(batches, offset, position, first, last)
                position += rows

    def _spans(self, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
        """(file, first row, last row + 1) for each file that holds some of the rows."""
        index = bisect_right(self._starts, start) - 1
        while index < len(self._files) and self._starts[index] < stop:
            offset = self._starts[index]
            first, last = max(start - offset, 0), min(stop - offset, self._files[index].num_rows)
            if first < last:
                yield index, first, last
            index += 1

    def row_names(self, start: int, stop: int) -> list[str]:
        """See Source.row_names."""
        return [
            f"{self._files[index].name}:{row}"
            for index, first, last in self._spans(start, stop)
            for row in range(first, last)
        ]


def _clip(batches: Iterator[pa.RecordBatch], offset: int, position: int, first: int, last: int) -> Iterator[RowBatch]:
    """Cut batches that start at row `position` of their file to the rows first..last-1 of that file."""
    for batch in batches:
        low, high = max(first - position, 0), min(last - position, batch.num_rows)
        if low < high:
            yield RowBatch(offset + position + low, batch.slice(low, high - low))
        position += batch.num_rows
        if position >= last:
            return


def _without_query(path: str) -> str:
    """A remote path as it is, but an http URL without its query (elsewhere, `?` is part of a pattern)."""
    return path.partition("?")[0] if path.startswith(("http://", "https://")) else path


def _similar(place: Path) -> str:
    if not place.parent.is_dir():
        return ""
    nearest = difflib.get_close_matches(place.name, [p.name for p in place.parent.iterdir()], n=1)
    return f"; did you mean {nearest[0]}?" if nearest else ""
