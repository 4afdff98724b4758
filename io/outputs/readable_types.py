"""The types in which shards hold columns of the input: those that every reader of Parquet opens.

Arrow writes more types than others read: one column of a view type, and polars or `datasets` open none of the folder.
Each type is brought to the nearest one that holds the same values.
"""

from collections.abc import Callable

import pyarrow as pa

_MOST_DIGITS = 38  # of a decimal, in Spark and polars

_CHECKS = pa.types
_PLAIN: tuple[tuple[Callable[[pa.DataType], bool], pa.DataType], ...] = (
    (_CHECKS.is_null, pa.string()),  # Spark has no column without a type
    (_CHECKS.is_string_view, pa.string()),
    (_CHECKS.is_binary_view, pa.binary()),
    (_CHECKS.is_float16, pa.float32()),
    (_CHECKS.is_date64, pa.date32()),
)


def readable_type(kind: pa.DataType) -> pa.DataType:
    """The type in which a column of this type is written; pyarrow casts to it without loss.

    Views become plain text, bytes and lists, half floats become floats, maps lists of `key` and `value`; Arrow's
    extension types become what they are stored as, but for JSON and those of `datasets`.

    Raises:
        ValueError: no such type holds the values; the message says why.
    """
    plain = next((plain for check, plain in _PLAIN if check(kind)), None)
    if plain is not None:
        return plain
    if isinstance(kind, pa.BaseExtensionType):
        return _readable_extension(kind)
    if pa.types.is_dictionary(kind):
        value = readable_type(kind.value_type)
        return kind if value == kind.value_type else value
    if pa.types.is_decimal(kind):
        return _readable_decimal(kind)
    if pa.types.is_map(kind):
        entry = [("key", readable_type(kind.key_type)), ("value", readable_type(kind.item_type))]
        return pa.list_(pa.struct(entry))
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(readable_type(field.type)) for field in kind])
    return _readable_list(kind)


def _readable_list(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_list(kind) or pa.types.is_list_view(kind):
        return pa.list_(_readable_items(kind))
    if pa.types.is_large_list(kind) or pa.types.is_large_list_view(kind):
        return pa.large_list(_readable_items(kind))
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(_readable_items(kind), kind.list_size)
    return kind


def _readable_items(kind: pa.DataType) -> pa.Field:
    return kind.value_field.with_type(readable_type(kind.value_type))


def _readable_decimal(kind: pa.DataType) -> pa.DataType:
    if kind.precision > _MOST_DIGITS:
        raise ValueError(f"decimals of more than {_MOST_DIGITS} digits, which Spark and polars cannot read")
    return pa.decimal128(kind.precision, kind.scale)


def _readable_extension(kind: pa.BaseExtensionType) -> pa.DataType:
    if isinstance(kind, pa.Bool8Type):
        return pa.bool_()
    keeps = kind.extension_name == "arrow.json" or kind.extension_name.startswith("datasets.")
    return kind if keeps else readable_type(kind.storage_type)
