"""How the value of a template's field is written: as people write it, or in a format of Python's that the field names.

A format comes from job.toml and meets every value of a column, so it is checked against the column's type at the start.
Of a dictionary-encoded column, the type here is that of its values.
"""

import re
from datetime import datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa

from run_batch.io.arrow_types import is_text

# Characters that a format can add to a value: it shall not fill the memory.
_MAX_WIDTH = 1000
_NUMBER_OR_TEXT = re.compile(
    r"(?:.?[<>=^])?[-+ ]?z?#?0?(?P<width>[0-9]*)[,_]?(?:\.(?P<precision>[0-9]+))?(?P<type>[a-zA-Z%]?)", re.DOTALL
)
# strftime's directives as Python documents them, without those that depend on the locale alone, and glibc's `-`.
_DATE = re.compile(r"(?:[^%{}]|%(?:-?[dmHIMSjyUW]|[aAwbBYpfzZGuV%]))*", re.DOTALL)


def can_be_written(kind: pa.DataType) -> bool:
    """Whether values of a type can stand in a prompt: text, numbers, booleans, dates and timestamps."""
    return _sample(kind) is not None


def check_format(kind: pa.DataType, spec: str) -> None:
    """Check that a format fits every value of a type.

    Raises:
        ValueError: why it does not.
    """
    sample = _sample(kind)
    if not spec:
        return
    if isinstance(sample, datetime):
        _check_date_format(spec)
    else:
        _check_width(spec, isinstance(sample, str))
    if isinstance(sample, bool) and not spec[-1].isalpha():
        raise ValueError("true and false take a format of numbers, such as d for 1 and 0")
    format(sample, spec)


def write(value: Any, kind: pa.DataType, spec: str) -> str:
    """Write a value of a type: `format(value, spec)`, of a float of 16 or 32 bits by its shortest decimal form.

    Args:
        value: as Arrow gives it, no null.
        spec: a format that `check_format` takes; empty for the value as it is.
    """
    if isinstance(value, Decimal) and not spec:
        spec = "f"  # Python writes a zero of many digits as 0E-18
    elif pa.types.is_float32(kind) and not value.is_integer():
        value = float(str(np.float32(value)))
    elif pa.types.is_float16(kind) and not value.is_integer():
        value = float(str(np.float16(value)))
    return format(value, spec)


def _sample(kind: pa.DataType) -> Any:
    """Some value of a type, which takes the same formats as all the others; None for types that cannot be written."""
    is_type = pa.types
    samples = (
        (is_text, "text"),
        (is_type.is_integer, 1),
        (is_type.is_floating, 0.5),
        (is_type.is_boolean, True),
        (is_type.is_decimal, Decimal("0.5")),
        (is_type.is_date, datetime.min),
        (is_type.is_timestamp, datetime.min),
    )
    return next((sample for check, sample in samples if check(kind)), None)


def _check_width(spec: str, is_of_text: bool) -> None:
    found = _NUMBER_OR_TEXT.fullmatch(spec)
    if found is None:
        raise ValueError("a format is [[fill]align][sign][#][0][width][,][.precision][type], as in Python")
    if found["type"] in {"c", "n"}:
        raise ValueError(f"type {found['type']} is not taken: use d, f, e, g or %")
    # Text is cut by a precision, not extended.
    added = [found["width"], "" if is_of_text else found["precision"] or ""]
    if any(len(digits.lstrip("0")) > len(str(_MAX_WIDTH)) or int(digits or 0) > _MAX_WIDTH for digits in added):
        raise ValueError(f"width and precision are up to {_MAX_WIDTH}")


def _check_date_format(spec: str) -> None:
    if "%" not in spec:
        raise ValueError("dates take directives of strftime, such as %Y-%m-%d")
    if _DATE.fullmatch(spec) is None:
        raise ValueError("it has braces, or directives that are not taken; %Y %m %d %H %M %S %f %j %a %A %b %B are")
