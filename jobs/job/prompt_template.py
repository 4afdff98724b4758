"""prompt.template: literal text written by the job's author, and fields that a row's columns fill."""

import re
import string
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from run_batch.io.arrow_types import is_list
from run_batch.io.features import classes_at, features_of
from run_batch.jobs.job.errors import JobError
from run_batch.jobs.job.field_format import can_be_written, check_format, write
from run_batch.model.checkpoint.nearest_name import did_you_mean


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a template, filled with the value of a column or of a field inside it.

    Attributes:
        column: name of the column.
        names: of the fields that lead to the value, from a struct to what is in it; empty for the column itself.
        kind: type of the value, not dictionary-encoded; text where it stands for a class.
        spec: format of the value; empty for the value as it is.
        classes: names of the classes that the values stand for by their numbers; empty for other values.
    """

    column: str
    names: tuple[str, ...]
    kind: pa.DataType
    spec: str = ""
    classes: tuple[str, ...] = ()

    def fill(self, row: Mapping[str, Any]) -> str:
        """The value in a row, as text.

        Raises:
            ValueError: the column, the value or a struct around it is null, or of no class; the message says which.
        """
        value = row[self.column]
        for depth, name in enumerate(self.names):
            if value is None:
                raise ValueError(f"{_place(self.column, self.names[:depth])} is null")
            value = value[name]
        if value is None:
            raise ValueError(f"{_place(self.column, self.names)} is null")
        if self.classes:
            if not 0 <= value < len(self.classes):
                raise ValueError(f"{_place(self.column, self.names)} is {value}, which is no class")
            value = self.classes[value]
        return write(value, self.kind, self.spec)


@dataclass(frozen=True, slots=True)
class PromptTemplate:
    """A parsed prompt.template.

    Attributes:
        parts: literal text and fields, in order.
    """

    parts: Sequence[str | Field]

    @property
    def fields(self) -> list[Field]:
        """Its fields, in order; one that is used twice is there twice."""
        return [part for part in self.parts if isinstance(part, Field)]

    @property
    def literal_text(self) -> str:
        """Its literal text; a NUL character stands where fields were, so that no text spans a field."""
        return "\0".join(part for part in self.parts if isinstance(part, str))

    def fill(self, row: Mapping[str, Any]) -> list[tuple[str, bool]]:
        """The prompt of a row, in parts: (text, whether it is the template's literal text and not the row's data).

        Raises:
            ValueError: a column is null; the message names the column.
        """
        return [(part, True) if isinstance(part, str) else (part.fill(row), False) for part in self.parts]


def parse_template(
    template: str, prompt_column: str, schema: pa.Schema, key: str = "prompt.template"
) -> PromptTemplate:
    """Parse a template. `{prompt}` stands for the prompt column, any other field for the column of its name.

    Args:
        key: the key of job.toml that holds the template, for messages.

    Raises:
        JobError: bad syntax, a field that names no column of text, numbers, booleans or dates, or a format that its
            values do not take.
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
        if conversion:
            raise JobError(f"{key}: field {{{name}!{conversion}}} has a conversion, which is not taken; leave it out")
        parts.append(_checked(_field(key, name, prompt_column, schema), key, name, spec or ""))
    return PromptTemplate(parts)


def _field(key: str, name: str, prompt_column: str, schema: pa.Schema) -> Field:
    """The field that a name with dots leads to; where it can be read in several ways, none is."""
    if not name:
        raise JobError(f"{key}: a field without a name; write {{prompt}}, {{COLUMN}}, or {{{{}}}} for literal braces")
    readings = list(_readings(name.split("."), prompt_column, schema))
    if len(readings) > 1:
        places = " or ".join(_place(reading.column, reading.names) for reading in readings)
        raise JobError(f"{key}: field {{{name}}} can be {places}; rename one of them in the input")
    if readings:
        return readings[0]
    raise _no_such_field(key, name, prompt_column, schema)


def _no_such_field(key: str, name: str, prompt_column: str, schema: pa.Schema) -> JobError:
    first, _, rest = name.partition(".")
    column = prompt_column if first == "prompt" else first
    if column not in schema.names:
        require_column(key, prompt_column if first == "prompt" else name, schema)
    kind = _plain_type(schema.field(column).type)
    if not pa.types.is_struct(kind):
        return JobError(f"{key}: field {{{name}}}: column {column} is {kind}, which has no fields")
    fields = list(_fields_in(kind))
    hint = did_you_mean(rest, fields)
    return JobError(f"{key}: field {{{name}}}: column {column} has no {rest}; it has: {', '.join(fields)}{hint}")


def _plain_type(kind: pa.DataType) -> pa.DataType:
    """The type of the values of a dictionary-encoded column; of any other, its own."""
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _readings(names: Sequence[str], prompt_column: str, schema: pa.Schema) -> Iterator[Field]:
    """Every way to read names that dots separate: columns and fields may have dots in their own names."""
    for count in range(1, len(names) + 1):
        column = prompt_column if names[:count] == ["prompt"] else ".".join(names[:count])
        if column in schema.names:
            for inner, kind in _inside(schema.field(column).type, names[count:]):
                classes = classes_at(features_of(schema), column, inner)
                yield Field(column, inner, pa.string() if classes else kind, "", classes)


def _inside(kind: pa.DataType, names: Sequence[str]) -> Iterator[tuple[tuple[str, ...], pa.DataType]]:
    kind = _plain_type(kind)
    if not names:
        yield (), kind
    elif pa.types.is_struct(kind):
        for count in range(1, len(names) + 1):
            field = ".".join(names[:count])
            place = kind.get_field_index(field)
            if place >= 0:
                for inner, leaf in _inside(kind.field(place).type, names[count:]):
                    yield (field, *inner), leaf


def _fields_in(kind: pa.DataType) -> Iterator[str]:
    """The names of all fields inside a struct, at any depth, with dots."""
    kind = _plain_type(kind)
    if pa.types.is_struct(kind):
        for field in kind:
            inner = [f"{field.name}.{name}" for name in _fields_in(field.type)]
            yield from inner or [field.name]


def _checked(field: Field, key: str, name: str, spec: str) -> Field:
    place = _place(field.column, field.names)
    if pa.types.is_struct(field.kind):
        fields = ", ".join(f"{{{name}.{inner}}}" for inner in _fields_in(field.kind))
        raise JobError(f"{key}: {place} is a struct; name a field of it: {fields}")
    if not can_be_written(field.kind):
        hint = "; messages are taken by prompt.chat = true, as {prompt} alone" if is_list(field.kind) else ""
        raise JobError(f"{key}: {place} is {field.kind}; a field takes text, numbers, true/false or dates{hint}")
    try:
        check_format(field.kind, spec)
    except ValueError as error:
        written = f"{{{name}:{spec[:100]}}}"
        raise JobError(
            f"{key}: field {written}: {place} is {field.kind}, which the format does not fit: {error}"
        ) from None
    return replace(field, spec=spec)


def _place(column: str, names: Sequence[str]) -> str:
    return f"field {'.'.join(names)} of column {column}" if names else f"column {column}"


def require_column(key: str, column: str, schema: pa.Schema) -> None:
    """Check that the input has the column that a key of job.toml names.

    Raises:
        JobError: it has not; the message lists the columns that it has.
    """
    if column not in schema.names:
        names = ", ".join(map(shown_name, schema.names))
        raise JobError(f"{key} names column {column!r}; the input has: {names}{_hint(column, schema)}")


def _hint(column: str, schema: pa.Schema) -> str:
    """What may be meant by the name of a column that is not there."""
    spaced = next((name for name in schema.names if name.strip() == column.strip()), None)
    outer = column.partition(".")[0]
    if spaced is not None:
        return f"; write {spaced!r}, with its spaces, or take them out of the file"
    if outer in schema.names and pa.types.is_struct(schema.field(outer).type):
        return f"; a field in column {outer} is no column of its own: write the input anew with it as one"
    if len(schema.names) == 1 and re.search(r"\W", schema.names[0]):
        return '; if it is CSV, its first line is split at commas, tabs, semicolons or "|", and has none of them'
    return did_you_mean(column, schema.names)


def shown_name(column: str) -> str:
    """The name of a column for people, in quotes where it begins or ends with a space."""
    return column if column == column.strip() else repr(column)
