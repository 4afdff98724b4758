"""prompt.template: literal text written by the job's author, and fields that a row's columns fill."""

import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from run_batch.io.arrow_types import is_text
from run_batch.jobs.job.errors import JobError
from run_batch.model.checkpoint.nearest_name import did_you_mean


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a template, filled with the value of a column."""

    column: str


@dataclass(frozen=True, slots=True)
class PromptTemplate:
    """A parsed prompt.template.

    Attributes:
        parts: literal text and fields, in order.
    """

    parts: Sequence[str | Field]

    @property
    def columns(self) -> list[str]:
        """The columns of its fields, in order; one that is used twice is there twice."""
        return [part.column for part in self.parts if isinstance(part, Field)]

    @property
    def literal_text(self) -> str:
        """Its literal text; a NUL character stands where fields were, so that no text spans a field."""
        return "\0".join(part for part in self.parts if isinstance(part, str))

    def without(self, placeholder: str) -> "PromptTemplate":
        """The template without the model's image placeholder, for rows without images."""
        return PromptTemplate([p.replace(placeholder, "") if isinstance(p, str) else p for p in self.parts])

    def fill(self, row: Mapping[str, Any]) -> list[tuple[str, bool]]:
        """The prompt of a row, in parts: (text, whether it is the template's literal text and not the row's data).

        Raises:
            ValueError: a column is null; the message names the column.
        """
        filled = []
        for part in self.parts:
            if isinstance(part, str):
                filled.append((part, True))
                continue
            value = row[part.column]
            if value is None:
                raise ValueError(f"column {part.column} is null")
            filled.append((str(value), False))
        return filled


def parse_template(
    template: str, prompt_column: str, schema: pa.Schema, key: str = "prompt.template"
) -> PromptTemplate:
    """Parse prompt.template. `{prompt}` stands for the prompt column, any other field for the column of its name.

    Raises:
        JobError: bad syntax, or a field that names no column of text, numbers, booleans or dates.
    """
    parts: list[str | Field] = []
    try:
        parsed = list(string.Formatter().parse(template))
    except ValueError as error:
        raise JobError(f"{key}: {error} (write {{{{ and }}}} for literal braces)") from None
    for literal, name, spec, conversion in parsed:
        if literal and parts and isinstance(parts[-1], str):
            parts[-1] += literal  # an escaped brace ends one literal and starts the next
        elif literal:
            parts.append(literal)
        if name is None:
            continue
        if spec or conversion:
            raise JobError(f"{key}: field {{{name}}} takes no format or conversion")
        column = prompt_column if name == "prompt" else name
        require_column(key, column, schema)
        kind = schema.field(column).type
        if not _can_fill_field(kind):
            raise JobError(f"{key}: column {column} is {kind}; a field takes text, numbers or true/false")
        parts.append(Field(column))
    return PromptTemplate(parts)


def _can_fill_field(kind: pa.DataType) -> bool:
    is_type = pa.types
    if is_type.is_dictionary(kind):
        return _can_fill_field(kind.value_type)
    return any(
        check(kind)
        for check in (
            is_text,
            is_type.is_integer,
            is_type.is_floating,
            is_type.is_boolean,
            is_type.is_decimal,
            is_type.is_date,
            is_type.is_timestamp,
        )
    )


def require_column(key: str, column: str, schema: pa.Schema) -> None:
    """Check that the input has the column that a key of job.toml names.

    Raises:
        JobError: it has not; the message lists the columns that it has.
    """
    if column not in schema.names:
        hint = did_you_mean(column, schema.names)
        raise JobError(f"{key} names column {column!r}; the input has: {', '.join(schema.names)}{hint}")
