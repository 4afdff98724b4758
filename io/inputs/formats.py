"""Which format the files of an input are of: what `input.format` says, or what their names and first bytes do."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from run_batch.io.inputs.arrow_files import ArrowFormat
from run_batch.io.inputs.csv_files import CsvFormat
from run_batch.io.inputs.file_content import ACCEPTED, content_of, other_content, plain_text, read_head
from run_batch.io.inputs.file_format import FileFormat
from run_batch.io.inputs.first_look_cache import CachedFormat
from run_batch.io.inputs.input_files import InputFiles
from run_batch.io.inputs.json_lines import JsonLinesFormat
from run_batch.io.inputs.openai_batches import row_of_request
from run_batch.io.inputs.parquet import ParquetFormat
from run_batch.io.inputs.source import InputError
from run_batch.io.inputs.tar_shards import TarFormat

# Of rows, by their names in `input.format`. Images without a table are none: each is a row itself.
FORMATS: Mapping[str, FileFormat] = {
    "parquet": ParquetFormat(),
    "jsonl": CachedFormat(JsonLinesFormat(), "jsonl"),
    "csv": CachedFormat(CsvFormat(), "csv"),
    "arrow": ArrowFormat(),
    "webdataset": CachedFormat(TarFormat(), "webdataset"),
    # Named alone: its files are JSON Lines, too.
    "openai": CachedFormat(JsonLinesFormat("OpenAI batch", row_of_request), "openai"),
}
IMAGES = "images"


def has_suffix_of(name: str, kind: FileFormat) -> bool:
    """Whether a file of this name is of a format, as far as its name tells."""
    return name.lower().endswith(kind.suffixes)


def format_by_name(name: str) -> str | None:
    """The format of rows that the name of a file tells; None if it tells none."""
    return next((key for key, kind in FORMATS.items() if has_suffix_of(name, kind)), None)


def one_format(files: InputFiles, is_image: Callable[[str], bool]) -> tuple[str, InputFiles]:
    """The format that all files are of, or IMAGES; and the files that are of it.

    Args:
        is_image: whether a file of this name is an image.

    Raises:
        InputError: they are of several formats, or of one that is not read.
    """
    by_format: dict[str, list[str]] = {}
    by_content: str | None = None  # of the first file whose name tells none, for all of them
    for path in files.paths:
        key = IMAGES if is_image(path) else format_by_name(files.name(path))
        if key is None:
            key = by_content = by_content or _format_by_content(files, path)
        by_format.setdefault(key, []).append(path)
    if files.is_folder:
        by_format = _without_images(_without_notes(by_format))
    check_same([(key, paths[0]) for key, paths in by_format.items()])
    ((only, paths),) = by_format.items()
    return only, replace(files, paths=paths)


def check_same(found: Sequence[tuple[str, str]]) -> None:
    """Refuse files that are of several formats.

    Args:
        found: format and path of some files.

    Raises:
        InputError: names two files.
    """
    one, first = found[0]
    for other, second in found:
        if other != one:
            raise InputError(
                f'input.path: {first} is {one}, {second} is {other}; set input.format to "{one}" or "{other}", or name '
                "the files of one format"
            )


def _without_notes(by_format: dict[str, list[str]]) -> dict[str, list[str]]:
    """The files of each format without those in JSON that tell of a data set, and are no rows of it."""
    rows = {key: [path for path in paths if not _is_note(path)] for key, paths in by_format.items()}
    tables = {key: paths for key, paths in rows.items() if paths and key != IMAGES}
    return by_format if not tables else {key: paths for key, paths in rows.items() if paths}


def _without_images(by_format: dict[str, list[str]]) -> dict[str, list[str]]:
    """The files of each format without images, which lie beside the tables that name them."""
    tables = {key: paths for key, paths in by_format.items() if key != IMAGES}
    is_note_alone = all(_is_note(path) for paths in tables.values() for path in paths)
    return by_format if is_note_alone else tables


def _is_note(path: str) -> bool:
    """Whether a file lies in folders of other formats without being rows of them."""
    return os.path.splitext(path)[1].lower() == ".json"


def _format_by_content(files: InputFiles, path: str) -> str:
    """The format of a file whose name tells none.

    Raises:
        InputError: it is of none that is read.
    """
    head = read_head(files, path)
    found = content_of(head)
    if found is not None and found.format is not None and (found.format in FORMATS or found.format == IMAGES):
        return found.format
    if found is not None:
        raise other_content(path, "rows", found)
    if head.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"{"):
        return "jsonl"
    if not head:
        return "parquet"  # missing, empty or not to be read: the error tells which
    text = plain_text(path, head)
    if text is not None:
        raise other_content(path, "rows", text)
    raise InputError(
        f"input.path: {path}: neither its name nor its first bytes tell its format; input.path takes {ACCEPTED}. Set "
        "input.format if it is one of these"
    )
