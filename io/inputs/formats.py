"""Which format the files of an input are of: what `input.format` says, or what their names and first bytes do."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from run_batch.io.inputs.csv_files import CsvFormat
from run_batch.io.inputs.file_content import ACCEPTED, content_of, other_content, read_head
from run_batch.io.inputs.file_format import FileFormat
from run_batch.io.inputs.file_source import FileSource
from run_batch.io.inputs.input_files import InputFiles, Wanted, find_files
from run_batch.io.inputs.json_lines import JsonLinesFormat
from run_batch.io.inputs.parquet import ParquetFormat
from run_batch.io.inputs.source import InputError, Source

_FORMATS: Mapping[str, FileFormat] = {
    "parquet": ParquetFormat(),
    "jsonl": JsonLinesFormat(),
    "csv": CsvFormat(),
}
# Folders of other formats have such files beside their rows.
_NO_ROWS_BESIDE_OTHERS = ".json"


def open_files(
    paths: Sequence[str],
    format_name: str | None,
    index: bytes = b"",
    split: str | None = None,
    name: str | None = None,
    leave_out: Callable[[str], bool] = lambda _: False,
) -> Source:
    """Open the input that is in the files that paths, globs or URLs name.

    Args:
        format_name: as `input.format`; None to tell it from the files.
        index: see FileSource.
        split: see FileSource.
        name: see FileSource.
        leave_out: whether a local file, given by its real path, is no part of the input.

    Raises:
        InputError: there are no files, they are of several formats, or of none that is read.
    """
    if format_name is not None:
        kind = _FORMATS[format_name]
        files = find_files(paths, leave_out, Wanted(f"{kind.name} file", lambda file: _ends_as(file, kind)))
        return FileSource(files, kind, index, split, name)
    refused = dict[str, InputError]()
    wanted = Wanted("file of rows", lambda file: format_by_name(file) is not None)
    files = find_files(paths, lambda real: _is_left_out(real, leave_out, refused), wanted)
    format_name, files = _one_format(files)
    for path in files.paths if refused else ():
        if os.path.realpath(path) in refused:
            raise refused[os.path.realpath(path)]
    return FileSource(files, _FORMATS[format_name], index, split, name)


def _is_left_out(real: str, leave_out: Callable[[str], bool], refused: dict[str, InputError]) -> bool:
    """What `leave_out` says of a file; its error is kept, for the file may turn out to be none of the input's."""
    try:
        return leave_out(real)
    except InputError as error:
        refused[real] = error
        return False


def format_by_name(name: str) -> str | None:
    """The format that the name of a file tells; None if it tells none."""
    return next((key for key, kind in _FORMATS.items() if _ends_as(name, kind)), None)


def _ends_as(name: str, kind: FileFormat) -> bool:
    return name.lower().endswith(kind.suffixes)


def _one_format(files: InputFiles) -> tuple[str, InputFiles]:
    """The format that all files are of, and the files that are rows."""
    by_format: dict[str, list[str]] = {}
    by_content: str | None = None  # of the first file whose name tells none, for all of them
    for path in files.paths:
        by_name = format_by_name(files.name(path))
        if by_name is None:
            by_content = by_content or _format_by_content(files, path)
        by_format.setdefault(by_name or by_content or "", []).append(path)
    if files.is_folder and not all(map(_is_note, files.paths)):
        by_format = _without_notes(by_format)
    if len(by_format) > 1:
        (one, (first, *_)), (other, (second, *_)), *_ = by_format.items()
        raise InputError(
            f'input.path: {first} is {one}, {second} is {other}; set input.format to "{one}" or "{other}", or name the '
            "files of one format"
        )
    ((only, paths),) = by_format.items()
    return only, replace(files, paths=paths)


def _without_notes(by_format: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """The files of each format without those in JSON that tell of a data set, and are no rows of it."""
    rows = {key: [path for path in paths if not _is_note(path)] for key, paths in by_format.items()}
    return {key: paths for key, paths in rows.items() if paths}


def _is_note(path: str) -> bool:
    return os.path.splitext(path)[1].lower() == _NO_ROWS_BESIDE_OTHERS


def _format_by_content(files: InputFiles, path: str) -> str:
    """The format of a file whose name tells none.

    Raises:
        InputError: it is of none that is read.
    """
    head = read_head(files, path)
    found = content_of(head)
    if found is not None and found.format is not None and found.format in _FORMATS:
        return found.format
    if found is not None:
        raise other_content(path, "rows", found)
    if head.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"{"):
        return "jsonl"
    if not head:
        return "parquet"  # missing, empty or not to be read: the error tells which
    raise InputError(
        f"input.path: {path}: neither its name nor its first bytes tell its format; input.path takes {ACCEPTED}. Set "
        "input.format if it is one of these"
    )
