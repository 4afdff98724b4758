"""Files in JSON that hold one object, and not a row in each line: what they are, and the lines that convert them."""

import contextlib
from typing import Any

import msgspec

from run_batch.io.inputs.file_content import Content, other_content
from run_batch.io.inputs.input_files import InputFiles
from run_batch.io.inputs.source import InputError
from run_batch.io.inputs.text_stream import BOM, TextStream

# Larger files are not looked into.
_MOST_BYTES = 256 << 20
_LOAD = 'import json\n    rows = json.load(open("{file}"))'
_WRITE = '\n    open("{stem}.jsonl", "w").writelines(json.dumps(row) + "\\n" for row in rows)'
_COLUMNS = Content(
    "a dict of columns in JSON",
    None,
    f"{_LOAD}\n    rows = [dict(zip(rows, values)) for values in zip(*rows.values())]{_WRITE}",
)
_PANDAS = Content(
    "a dict of columns in JSON, as pandas writes it",
    None,
    'import pandas as pd\n    pd.read_json("{file}").to_json("{stem}.jsonl", orient="records", lines=True)',
)
_ROWS = Content(
    "a dict of rows in JSON",
    None,
    _LOAD + '\n    rows = [{"key": key, **row} for key, row in rows.items()]' + _WRITE,
)
# Keys under which files hold rows; a row holds lists of objects itself, such as its messages.
_HOLDERS = frozenset(
    (
        *("data", "rows", "records", "items", "entries", "examples", "samples", "instances", "questions"),
        *("train", "validation", "test"),
    )
)
_ROW = "If the object is a row, let the name of the file end with .jsonl"


def refuse_object(files: InputFiles, path: str, is_one_line: bool) -> None:
    """Refuse a file that is one object with all rows in it.

    Args:
        is_one_line: whether it is a line, too, and so may be a row.

    Raises:
        InputError: names what it is, and the lines that convert it.
    """
    found = _read(files, path)
    content = None if found is None else _content_of(found)
    if content is None:
        return
    error = other_content(path, "JSON Lines", content)
    raise InputError(f"{error}\n{_ROW}") if is_one_line else error


def _read(files: InputFiles, path: str) -> dict[str, Any] | None:
    """The object in a file; None where it holds something else, or is too large to look."""
    with contextlib.suppress(ValueError, RecursionError, msgspec.MsgspecError, OSError, InputError):
        with TextStream(files, path) as stream:
            text = stream.read(_MOST_BYTES)
        found = msgspec.json.decode(text.removeprefix(BOM))
        return found if isinstance(found, dict) else None
    return None


def _content_of(found: dict[str, Any]) -> Content | None:
    """What an object is, as far as it holds rows."""
    values = list(found.values())
    if len(values) > 1 and all(isinstance(value, list) for value in values):
        lengths = set(map(len, values))
        return _COLUMNS if len(lengths) == 1 and lengths.pop() > 1 else None
    if len(values) > 1 and all(isinstance(value, dict) for value in values):
        keys = list(map(tuple, values))
        if any(key != keys[0] for key in keys) or not keys[0]:
            return None
        return _PANDAS if all(key == str(i) for i, key in enumerate(keys[0])) else _ROWS
    held = [key for key, value in found.items() if key in _HOLDERS and isinstance(value, list) and value]
    are_objects = len(held) == 1 and all(isinstance(value, dict) for value in found[held[0]])
    return _held_in(held[0]) if are_objects else None


def _held_in(key: str) -> Content:
    lines = f"{_LOAD}[{msgspec.json.encode(key).decode()}]{_WRITE}"
    return Content(f"an object in JSON that holds rows in {key!r}", None, lines)
