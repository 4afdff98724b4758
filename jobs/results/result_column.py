"""A column of results: its name, its type, and what it holds of a row."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa


@dataclass(frozen=True, slots=True)
class ResultColumn:
    """One column.

    Attributes:
        value: its cell for the result of a row that did not fail.
    """

    name: str
    type: pa.DataType
    value: Callable[[Any], Any]
