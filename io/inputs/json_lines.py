"""JSON Lines: a row is a line. A file is parsed when it is first looked at, which gives the types of its columns and an
index of offsets; from then on, any row is a seek away.
"""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any

import blake3
import msgspec
import pyarrow as pa

from run_batch.io.inputs.columns import Columns
from run_batch.io.inputs.file_content import as_utf8, check_is
from run_batch.io.inputs.file_format import FileFacts, OpenFile
from run_batch.io.inputs.file_rows import FileRows
from run_batch.io.inputs.first_look import look_at_each
from run_batch.io.inputs.input_files import InputFiles
from run_batch.io.inputs.json_objects import refuse_object
from run_batch.io.inputs.json_seen import Seen
from run_batch.io.inputs.line_blocks import BlockIndex, look_at_lines, read_block
from run_batch.io.inputs.partitions import constants_of, partitions_of
from run_batch.io.inputs.source import InputError
from run_batch.io.inputs.text_stream import BOM, TextStream

_MOST_COLUMNS = 2048
# Of names that files of one object have more often than those of lines.
_JSON = re.compile(r"\.json(\.\w+)?$", re.IGNORECASE)
# Makes of the object in a line the row that it stands for.
RowOf = Callable[[dict[str, Any]], dict[str, Any]]


class JsonLinesFormat:
    """Files of JSON Lines; see FileFormat."""

    suffixes = tuple(
        f"{kind}{packed}" for kind in (".jsonl", ".ndjson", ".json") for packed in ("", ".gz", ".zst", ".bz2")
    )

    def __init__(self, name: str = "JSON Lines", row_of: RowOf = lambda found: found) -> None:
        """Rows are made of the objects in lines by `row_of`, which raises ValueError for one that is none."""
        self.name, self._row_of = name, row_of

    def look_at_all(self, files: InputFiles) -> list[FileFacts]:
        """Parse all files."""
        return look_at_each(files, self.look_at)

    def look_at(self, files: InputFiles, path: str) -> FileFacts:
        """Parse a file; an error names the line."""
        with look_at_lines(files, path) as (stream, size, changed):
            check_is("jsonl", "JSON Lines", path, stream.read(512))
            index, seen, digest, name, end = BlockIndex(), Seen(), blake3.blake3(), files.name(path), 0
            for number, (offset, line) in enumerate(stream.lines(0), 1):
                digest.update(line)
                try:
                    row = self._row(line if number > 1 else line.removeprefix(BOM), path, number)
                except InputError:
                    if number == 1:
                        refuse_object(files, path, is_one_line=False)
                    raise
                if row is not None:
                    index.add(offset)
                    seen.add(row, f"line {number:,} of {name}")
                    if len(seen.kinds) > _MOST_COLUMNS:
                        raise InputError(
                            f"input.path: {path} has more than {_MOST_COLUMNS:,} different keys in its lines"
                        )
                end = offset + len(line)
            groups, offsets = index.ended(end)
            # A folder may hold a file for each row.
            if sum(groups) == 1 == len(files.paths) and _JSON.search(path):
                refuse_object(files, path, is_one_line=True)
            schema = seen.columns().schema
            return FileFacts(
                path, name, size, changed, schema, groups, digest.hexdigest(), offsets, stream.is_seekable, content=seen
            )

    def dump_content(self, content: Any) -> Any:
        """See LookedAtOnce.dump_content."""
        return content.dump()

    def load_content(self, dumped: Any) -> Any:
        """See LookedAtOnce.load_content."""
        return Seen.load(dumped)

    def columns(self, facts: Sequence[FileFacts]) -> Columns:
        """The columns of all files, in types that hold the values of each, and those that names of folders make."""
        seen = Seen()
        for one in facts:
            seen.merge(one.content)
            seen.add(constants_of(one.name, one.content.kinds), f"the folders of {one.name}")
        return seen.columns()

    def open(self, files: InputFiles, facts: FileFacts, schema: pa.Schema, batch_rows: int) -> OpenFile:
        """Open a file to read it block by block."""
        stream = TextStream(files, facts.path)
        # For keys that a row lacks; where a column is no text, all files have the key themselves.
        folders = {name: value for name, value in partitions_of(facts.name).items() if _is_text(schema, name)}
        columns = [(column.name, column.type, folders.get(column.name)) for column in schema]

        def read(group: int) -> Iterator[pa.RecordBatch]:
            lines = read_block(stream, facts, group).removeprefix(BOM).split(b"\n")
            rows = (self._row_again(line) for line in lines if line.strip())
            while some := list(islice(rows, batch_rows)):
                arrays = [array_of([row.get(name, missing) for row in some], kind) for name, kind, missing in columns]
                yield pa.RecordBatch.from_arrays(arrays, schema=schema)

        return OpenFile(FileRows(facts.row_groups, read), stream.close)

    def _row_again(self, line: bytes) -> dict[str, Any]:
        """The row in a line that was one when the file was looked at."""
        try:
            return self._row_of(parse_line(line))
        except ValueError as error:
            raise pa.ArrowInvalid(str(error)) from None

    def _row(self, line: bytes, path: str, number: int) -> dict[str, Any] | None:
        """The row in a line; None for an empty line."""
        if not line.strip():
            return None
        try:
            return self._row_of(parse_line(line))
        except ValueError as error:
            hint = f"; {as_utf8(path)}" if isinstance(error, NotUtf8Error) else ""
            raise InputError(f"input.path: {path}, line {number:,}: {error}{hint}") from None


def _is_text(schema: pa.Schema, name: str) -> bool:
    return name in schema.names and pa.types.is_string(schema.field(name).type)


class NotUtf8Error(ValueError):
    """A text is not UTF-8."""


def parse_line(line: bytes) -> dict[str, Any]:
    """The object in a line.

    Raises:
        ValueError: it is none, or holds text that is not UTF-8.
    """
    found = parse_value(line)
    if not isinstance(found, dict):
        raise ValueError(f'expected an object, found {_described(found)}; each line is a row: {{"id": 1, …}}')
    return found


def parse_value(text: bytes) -> Any:
    """The value in JSON text; raises the errors of `parse_line`."""
    try:
        return msgspec.json.decode(text)
    except (ValueError, RecursionError, msgspec.MsgspecError):
        return _parse_by_python(text)


def _parse_by_python(line: bytes) -> Any:
    """The value in a line that msgspec refuses: NaN, as Python writes it, is none in JSON."""
    try:
        found = json.loads(line.decode().rstrip())  # of bytes, Python would guess the encoding
        json.dumps(found, ensure_ascii=False).encode()
    except UnicodeDecodeError as error:
        raise NotUtf8Error(f"text that is not UTF-8 (byte {error.start})") from None
    except UnicodeEncodeError:
        raise ValueError("text with half of a surrogate pair, which is not UTF-8") from None
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except json.JSONDecodeError as error:
        hint = "; a row is one line" if line.strip() in (b"{", b"[") else ""
        if line.lstrip().startswith(b"{'"):
            hint = "; this is how Python shows a dict: json.dumps writes it as JSON"
        cut = "; the file may be cut off here" if not line.endswith(b"\n") else ""
        raise ValueError(f"not JSON: {error.msg} at column {error.colno}{hint}{cut}") from None
    return found


def _described(value: Any) -> str:
    names = {list: "a list", str: "text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


def array_of(values: list[Any], kind: pa.DataType) -> pa.Array:
    """JSON values in the type of their column; in one of text, lists and objects are JSON text."""
    if pa.types.is_string(kind):
        values = [value if value is None or isinstance(value, str) else _dumped(value) for value in values]
    return pa.array(values, kind)


def _dumped(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
