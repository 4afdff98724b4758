"""The columns of an input of several files: one name, one type, whatever the single files say.

Writers disagree about types: pandas writes `string` where polars writes `large_string`, and `null` where a file has no
value. Types that hold the same values are brought to a common one; a column for which that is impossible is refused
only if the job uses it.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce

import pyarrow as pa

from run_batch.io.arrow_types import is_bytes, is_list, is_text
from run_batch.io.features import common_features, features_metadata
from run_batch.io.inputs.source import InputError

# pyarrow finds the common type of these: the finer unit, the larger precision.
_SCALED = (
    pa.types.is_decimal,
    pa.types.is_date,
    pa.types.is_time,
    pa.types.is_timestamp,
    pa.types.is_duration,
)
# Digits of an integer that each floating point type holds exactly, in bits.
_MANTISSA_BITS = {16: 11, 32: 24, 64: 53}


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns of all files together.

    Attributes:
        schema: each column of any file once, with the type in which it is read; in its metadata, the Hugging Face
            features that files tell of their columns and none contradicts.
        unusable: columns that cannot be read from all files, each with the reason.
    """

    schema: pa.Schema
    unusable: Mapping[str, str] = field(default_factory=dict)


def unify_columns(files: Sequence[tuple[str, pa.Schema]]) -> Columns:
    """Find the common columns of files, given by path and schema."""
    paths: dict[pa.Schema, str] = {}
    for path, schema in files:
        paths.setdefault(schema.remove_metadata(), path)
    names = dict.fromkeys(name for schema in paths for name in schema.names)
    fields, unusable = [], {}
    for name in names:
        found = [(path, _types_of(name, schema)) for schema, path in paths.items()]
        reason = _why_unusable(found)
        if reason:
            unusable[name] = reason
        kinds = [types[0] for _, types in found if types]
        common = None if reason else reduce(_common_or_none, kinds)
        fields.append(pa.field(name, common or kinds[0]))
    features = common_features(schema for _, schema in files)
    return Columns(pa.schema(fields, features_metadata(features)), unusable)


def _types_of(name: str, schema: pa.Schema) -> list[pa.DataType]:
    return [schema.field(i).type for i in schema.get_all_field_indices(name)]


def _why_unusable(found: Sequence[tuple[str, Sequence[pa.DataType]]]) -> str | None:
    """Why a column cannot be read, from its types in each file; None if it can."""
    for path, types in found:
        if not types:
            return f"is not in {path}; all files need the columns that the job uses"
        if len(types) > 1:
            return f"occurs {len(types)} times in {path}; rename or remove the others"
        repeated = _repeated_field(types[0])
        if repeated is not None:
            return f"has the field {repeated!r} twice in {path}; rename or remove one of them"
    common: pa.DataType | None = found[0][1][0]
    for path, (kind,) in found[1:]:
        common = common_type(common, kind)
        if common is None:
            # The common type so far may be of several files: name one that is at odds with this one by itself.
            odd = ((k, p) for p, (k,) in found if common_type(k, kind) is None)
            other, its_path = next(odd, (found[0][1][0], found[0][0]))
            return f"is {other} in {its_path}, but {kind} in {path}; no type holds the values of both: convert one"
    return None


def _repeated_field(kind: pa.DataType) -> str | None:
    """A field name that a struct in this type has twice."""
    if pa.types.is_struct(kind):
        name, count = max(Counter(f.name for f in kind).items(), key=lambda item: item[1], default=("", 0))
        if count > 1:
            return name
    inner = (_repeated_field(kind.field(i).type) for i in range(kind.num_fields))
    return next((name for name in inner if name is not None), None)


def common_type(first: pa.DataType, second: pa.DataType) -> pa.DataType | None:
    """The type that holds the values of two types without loss, and that pyarrow converts both to; None without one."""
    common = _common_type(first, second)
    try:
        return None if common is None else _convertible(common, (first, second))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return None


def _convertible(common: pa.DataType, kinds: Sequence[pa.DataType]) -> pa.DataType:
    for kind in kinds:
        pa.nulls(0, kind).cast(common)
    return common


def _common_type(first: pa.DataType, second: pa.DataType) -> pa.DataType | None:
    if first == second:
        return first
    if pa.types.is_null(first) or pa.types.is_null(second):
        return second if pa.types.is_null(first) else first
    first, second = _plain(first), _plain(second)
    if first == second:
        return first
    for check, larger in ((is_text, pa.large_string()), (is_bytes, pa.large_binary())):
        if check(first) and check(second):
            return larger
    if is_list(first) and is_list(second):
        return _common_list(first, second)
    if pa.types.is_struct(first) and pa.types.is_struct(second):
        return _common_struct(first, second)
    if any(check(first) and check(second) for check in _SCALED):
        return _common_scaled(first, second)
    return _common_number(first, second)


def _common_or_none(first: pa.DataType | None, second: pa.DataType) -> pa.DataType | None:
    return None if first is None else common_type(first, second)


def _plain(kind: pa.DataType) -> pa.DataType:
    """The type of the values of a dictionary or of an extension type."""
    if isinstance(kind, pa.BaseExtensionType):
        return _plain(kind.storage_type)
    return _plain(kind.value_type) if pa.types.is_dictionary(kind) else kind


def _common_list(first: pa.DataType, second: pa.DataType) -> pa.DataType | None:
    value = common_type(first.value_type, second.value_type)
    if value is None:
        return None
    if all(map(pa.types.is_fixed_size_list, (first, second))) and first.list_size == second.list_size:
        return pa.list_(value, first.list_size)
    return pa.list_(value) if all(map(pa.types.is_list, (first, second))) else pa.large_list(value)


def _common_struct(first: pa.DataType, second: pa.DataType) -> pa.DataType | None:
    """The fields of both; one that a file lacks is null in its rows."""
    kinds: dict[str, pa.DataType | None] = {f.name: f.type for f in first}
    for other in second:
        kinds[other.name] = _common_or_none(kinds.get(other.name, pa.null()), other.type)
    return None if None in kinds.values() else pa.struct(list(kinds.items()))


def _common_scaled(first: pa.DataType, second: pa.DataType) -> pa.DataType | None:
    schemas = [pa.schema([("value", kind)]) for kind in (first, second)]
    try:
        return pa.unify_schemas(schemas, promote_options="permissive").field(0).type
    except pa.ArrowException:
        return None


def _common_number(first: pa.DataType, second: pa.DataType) -> pa.DataType | None:
    is_integer, is_floating = pa.types.is_integer, pa.types.is_floating
    numbers = [kind for kind in (first, second) if is_integer(kind) or is_floating(kind)]
    if len(numbers) < 2:
        return None
    floats = [kind.bit_width for kind in numbers if is_floating(kind)]
    signed = any(map(pa.types.is_signed_integer, numbers))
    # An unsigned integer needs one bit more among signed ones.
    bits = max(
        (k.bit_width + (signed and pa.types.is_unsigned_integer(k)) for k in numbers if is_integer(k)), default=0
    )
    if floats:
        wide = [pa.float16(), pa.float32(), pa.float64()]
        return next((k for k in wide if k.bit_width >= max(floats) and _MANTISSA_BITS[k.bit_width] >= bits), None)
    widths = (
        [pa.int8(), pa.int16(), pa.int32(), pa.int64()]
        if signed
        else [pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()]
    )
    return next((kind for kind in widths if kind.bit_width >= bits), None)


def cast_batches(batches: Iterator[pa.RecordBatch], schema: pa.Schema, path: str) -> Iterator[pa.RecordBatch]:
    """Give the batches of one file the columns and types of `schema`, in its order.

    Raises:
        InputError: a column is missing, there twice, or holds a value that its type in `schema` cannot.
    """
    for batch in batches:
        yield pa.RecordBatch.from_arrays([_cast(batch, wanted, path) for wanted in schema], schema=schema)


def _cast(batch: pa.RecordBatch, wanted: pa.Field, path: str) -> pa.Array:
    places = batch.schema.get_all_field_indices(wanted.name)
    if len(places) != 1:
        raise InputError(f"input.path: {path} has {len(places)} columns {wanted.name}; expected one")
    column = batch.column(places[0])
    try:
        return column if column.type == wanted.type else column.cast(wanted.type)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise InputError(
            f"input.path: column {wanted.name} of {path} is {column.type} and cannot be read as {wanted.type}, the "
            f"type of all files together: {error}"
        ) from None
