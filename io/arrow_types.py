"""Kinds of Arrow types that hold the same values in different forms."""

import pyarrow as pa


def is_text(kind: pa.DataType) -> bool:
    """Whether values of the type are text."""
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def is_bytes(kind: pa.DataType) -> bool:
    """Whether values of the type are bytes, of any length or of a fixed one."""
    is_type = pa.types
    checks = (is_type.is_binary, is_type.is_large_binary, is_type.is_binary_view, is_type.is_fixed_size_binary)
    return any(check(kind) for check in checks)


def is_list(kind: pa.DataType) -> bool:
    """Whether values of the type are lists, of any length or of a fixed one."""
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def describe_values(kind: pa.DataType) -> str:
    """Describe a type: two have the same description only if a value of both is the same in Python, and as text.

    All kinds of strings are `text`, integers of all sizes `integer`.
    """
    if isinstance(kind, pa.BaseExtensionType):
        kind = kind.storage_type
    if pa.types.is_dictionary(kind):
        return describe_values(kind.value_type)
    if pa.types.is_integer(kind):
        return "integer"
    if is_list(kind):
        return f"list<{describe_values(kind.value_type)}>"
    if pa.types.is_struct(kind):
        return f"struct<{', '.join(f'{field.name}: {describe_values(field.type)}' for field in kind)}>"
    return "text" if is_text(kind) else "bytes" if is_bytes(kind) else str(kind)
