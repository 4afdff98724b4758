"""What a file is by its first bytes, whatever its name says: a format that is read, or one that has to be converted."""

import codecs
import contextlib
import re
from dataclasses import dataclass
from pathlib import PurePosixPath

from run_batch.io.inputs.input_files import InputFiles
from run_batch.io.inputs.source import InputError

ACCEPTED = (
    "Parquet, JSON Lines, CSV, Arrow and Feather files, WebDataset tar shards, image files, folders written by "
    "datasets.save_to_disk and data sets on the Hub"
)
_HEAD_BYTES = 512
_TAR_MAGIC = 257
# How a list in JSON begins, and a text such as `[INST] What is it?` does not.
_LIST = re.compile(rb"\[\s*(?:[\[{\"\]\-0-9]|true\b|false\b|null\b|$)")


@dataclass(frozen=True, slots=True)
class Content:
    """What a file is.

    Attributes:
        name: for people, with its article.
        format: the format that reads it, as `input.format` has it; None if none does.
        conversion: two lines of Python that convert it; `{file}` and `{stem}` stand for its name. Empty without any.
    """

    name: str
    format: str | None = None
    conversion: str = ""


def _pandas(read: str) -> str:
    return f'import pandas as pd\n    pd.{read}("{{file}}").to_parquet("{{stem}}.parquet")'


_IMAGES = {
    b"\x89PNG\r\n": "a PNG file",
    b"\xff\xd8\xff": "a JPEG file",
    b"GIF8": "a GIF file",
    b"II*\0": "a TIFF file",
    b"MM\0*": "a TIFF file",
    b"BM": "a BMP file",
    b"qoif": "a QOI file",
    b"\0\0\0\x0cjP  ": "a JPEG 2000 file",
}
_OTHERS = {
    b"PAR1": Content("a Parquet file", "parquet"),
    b"PARE": Content("an encrypted Parquet file"),
    b"ARROW1": Content("an Arrow file", "arrow"),
    b"\xff\xff\xff\xff": Content("an Arrow stream", "arrow"),
    b"FEA1": Content("a Feather file of version 1", None, _pandas("read_feather")),
    b"ORC": Content("an ORC file", None, _pandas("read_orc")),
    b"Obj\x01": Content(
        "an Avro file", None, 'import polars as pl\n    pl.read_avro("{file}").write_parquet("{stem}.parquet")'
    ),
    b"SQLite format 3\0": Content(
        "an SQLite data base",
        None,
        'import pandas as pd, sqlite3\n    pd.read_sql("select * from TABLE", sqlite3.connect("{file}"))'
        '.to_parquet("{stem}.parquet")',
    ),
    b"\x89HDF\r\n": Content("an HDF5 file", None, _pandas("read_hdf")),
    b"\x93NUMPY": Content("a NumPy file"),
    b"\x80\x04": Content("a pickle", None, _pandas("read_pickle")),
    b"\x80\x05": Content("a pickle", None, _pandas("read_pickle")),
    b"%PDF-": Content("a PDF file"),
    **dict.fromkeys(
        (b"\xff\xfe", b"\xfe\xff"),
        Content(
            "text in UTF-16",
            None,
            'text = open("{file}", encoding="utf-16").read()\n    open("{stem}.utf8.csv", "w").write(text)',
        ),
    ),
    b"\x1f\x8b": Content(
        "a gzip file",
        None,
        'import gzip, shutil\n    shutil.copyfileobj(gzip.open("{file}"), open("{stem}", "wb"))',
    ),
    b"\x28\xb5\x2f\xfd": Content("a Zstandard file"),
    b"BZh": Content("a bzip2 file"),
    b"7z\xbc\xaf": Content("a 7-Zip archive"),
}
_TARGETS = {"", ".jsonl", ".csv", ".parquet"}
_JSON_LIST = Content(
    "one list in JSON",
    None,
    'import json\n    rows = json.load(open("{file}"))\n    '
    'open("{stem}.jsonl", "w").writelines(json.dumps(row) + "\\n" for row in rows)',
)

_JSON_LISTS = Content(
    "a list in JSON in each line",
    None,
    'import json\n    rows = [dict(zip(("NAME", "NAME"), json.loads(line))) for line in open("{file}")]\n    '
    'open("{stem}.jsonl", "w").writelines(json.dumps(row) + "\\n" for row in rows)',
)
_PLAIN_TEXT = Content(
    "plain text",
    None,
    'import json\n    rows = [{"prompt": line.rstrip("\\n")} for line in open("{file}")]  # a row for each line\n    '
    'open("{stem}.jsonl", "w").writelines(json.dumps(row) + "\\n" for row in rows)',
)


def content_of(head: bytes) -> Content | None:
    """What a file is by its first 512 bytes; None for text of lines, or where they do not tell."""
    if not head or _is_text(head):
        return _text(head)
    image = next((name for magic, name in _IMAGES.items() if head.startswith(magic)), None)
    if image is None and head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        image = "a WebP file"
    if image is None and head[4:12] in (b"ftypavif", b"ftypavis"):
        image = "an AVIF file"
    if image is not None:
        return Content(image, "images")
    if head[_TAR_MAGIC : _TAR_MAGIC + 5] == b"ustar":
        return Content("a tar archive", "webdataset")
    if head.startswith(b"PK\x03\x04"):
        is_excel = b"[Content_Types].xml" in head or b"xl/" in head
        return Content("an Excel file", None, _pandas("read_excel")) if is_excel else Content("a ZIP archive")
    found = (content for magic, content in _OTHERS.items() if head.startswith(magic))
    return next(found, Content("a binary file of no known format") if b"\0" in head else None)


def _is_text(head: bytes) -> bool:
    """Whether bytes are text in UTF-8, which may begin like the name of another format: `BMI,age` or `ORCID,name`."""
    with contextlib.suppress(UnicodeDecodeError):
        codecs.getincrementaldecoder("utf-8")().decode(head)
        return b"\0" not in head and not head.startswith(b"%PDF-")
    return False


def _text(head: bytes) -> Content | None:
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if _LIST.match(text):
        first, _, rest = text.partition(b"\n")
        return _JSON_LISTS if first.rstrip().endswith(b"]") and rest.startswith(b"[") else _JSON_LIST
    if text.startswith(b"version https://git-lfs.github.com/"):
        return Content("a pointer of Git LFS in the place of the file, which `git lfs pull` fetches")
    if text.startswith((b"<!DOCTYPE", b"<!doctype", b"<html")):
        return Content("a page in HTML, as a server sends in the place of a file that is not there")
    return None


def plain_text(path: str, head: bytes) -> Content | None:
    """What a file is that is called one of text, and begins with some; None for others."""
    return _PLAIN_TEXT if path.lower().endswith(".txt") and _is_text(head) else None


def read_head(files: InputFiles, path: str) -> bytes:
    """The first bytes of a file; empty where it cannot be read, which its format reports."""
    with contextlib.suppress(OSError), contextlib.closing(files.open(path)) as file:
        return bytes(file.read(_HEAD_BYTES))
    return b""


def as_utf8(path: str) -> str:
    """The lines of Python that convert a text file, for the end of a message."""
    place = PurePosixPath(path)
    return (
        "if it is Latin-1 (Windows: cp1252), these lines of Python convert it:\n"
        f'    text = open("{place.name}", encoding="latin-1", newline="").read()\n'
        f'    open("{place.stem}.utf8{place.suffix}", "w", encoding="utf-8", newline="").write(text)'
    )


def check_is(kind: str, expected: str, path: str, head: bytes) -> None:
    """Refuse a file that is of another format than its job or its name says.

    Args:
        kind: the format, as `input.format` has it.
        expected: the format for people: `a Parquet file`.
        head: the first bytes of the file.

    Raises:
        InputError: names what it is, and the two lines that convert it.
    """
    found = content_of(head)
    if found is not None and found.format != kind and not (kind == "csv" and found in (_JSON_LIST, _JSON_LISTS)):
        raise other_content(path, expected, found)


def other_content(path: str, expected: str, found: Content) -> InputError:
    """The error of a file that is something else."""
    message = f"input.path: {path} is {found.name}, not {expected}"
    if found.format is not None and expected != "rows":
        return InputError(f'{message}; set input.format = "{found.format}" to read it')
    message += f"; input.path takes {ACCEPTED}"
    if found.conversion:
        place = PurePosixPath(path)
        # What is written never has the name of the file itself, whatever suffix that has by mistake.
        stem = f"{place.stem}.converted" if place.suffix in _TARGETS else place.stem
        lines = found.conversion.replace("{file}", place.name).replace("{stem}", stem)
        message += f". These lines of Python convert it:\n    {lines}"
    return InputError(message)
