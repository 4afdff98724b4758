"""The types of JSON values, found by looking at every one: no column is what its first rows look like.

Numbers, text and booleans make columns of their own types. Lists and objects make lists and structs where all rows
agree, and are JSON text otherwise, such as messages whose content is text here and a list of parts there.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa


class _Kind:
    # Plain integers: to combine members of an enumeration takes ten times as long, for each value of a file.
    NULL = 1
    BOOLEAN = 2
    INTEGER = 4
    # Beyond the integers that a double holds exactly, and beyond 64 bits.
    LONG = 8
    HUGE = 16
    NUMBER = 32
    TEXT = 64
    LIST = 128
    OBJECT = 256
    # Too many different fields, or too deep, for a type.
    WIDE = 512


_NAMES = {
    _Kind.BOOLEAN: "true or false",
    _Kind.INTEGER: "an integer",
    _Kind.LONG: "an integer of more than 53 bits",
    _Kind.HUGE: "an integer beyond those of 64 bits with a sign",
    _Kind.NUMBER: "a number with a fraction",
    _Kind.TEXT: "text",
    _Kind.LIST: "a list",
    _Kind.OBJECT: "an object",
}
_FLAGS = {type(None): _Kind.NULL, bool: _Kind.BOOLEAN, float: _Kind.NUMBER, str: _Kind.TEXT}
_SCALARS: Mapping[int, pa.DataType] = {
    0: pa.null(),
    _Kind.BOOLEAN: pa.bool_(),
    _Kind.INTEGER: pa.int64(),
    _Kind.LONG: pa.int64(),
    _Kind.INTEGER | _Kind.LONG: pa.int64(),
    _Kind.NUMBER: pa.float64(),
    _Kind.NUMBER | _Kind.INTEGER: pa.float64(),
    _Kind.TEXT: pa.string(),
}
_MOST_FIELDS = 512
_DEEPEST = 16


class JsonKind:
    """What the values at one place in all rows are."""

    __slots__ = ("_depth", "fields", "flags", "items")

    def __init__(self, depth: int = 0) -> None:
        """Nothing has been seen yet."""
        self.flags = 0
        self.items: JsonKind | None = None
        self.fields: dict[str, JsonKind] = {}
        self._depth = depth

    def add(self, value: Any) -> None:
        """See a value."""
        flag = _FLAGS.get(type(value))
        if flag is not None:
            self.flags |= flag
        elif type(value) is int:
            size = abs(value)
            self.flags |= (
                _Kind.INTEGER if size <= 1 << 53 else _Kind.LONG if -(1 << 63) <= value < 1 << 63 else _Kind.HUGE
            )
        elif type(value) is list:
            self.flags |= _Kind.LIST
            items = self._inner(self.items)
            if items is not None:
                self.items = items
                for item in value:
                    items.add(item)
        else:
            self.flags |= _Kind.OBJECT
            self._add_fields(value)

    def _add_fields(self, value: Mapping[str, Any]) -> None:
        for name, inner in value.items():
            found = self.fields.get(name)
            if found is None:
                found = self._inner(None)
                if found is None:
                    return
                self.fields[name] = found
            found.add(inner)

    def _inner(self, found: "JsonKind | None") -> "JsonKind | None":
        """What is inside of this kind, new if there is none yet; None where no type is to be found for it any more."""
        if self._depth >= _DEEPEST or len(self.fields) > _MOST_FIELDS:
            self.flags |= _Kind.WIDE
            self.fields.clear()
        if self.flags & _Kind.WIDE:
            return None
        return JsonKind(self._depth + 1) if found is None else found

    def merge(self, other: "JsonKind") -> None:
        """See what another one has seen."""
        self.flags |= other.flags
        if other.items is not None:
            self.items = self.items or JsonKind(self._depth + 1)
            self.items.merge(other.items)
        for name, inner in other.fields.items():
            self.fields.setdefault(name, JsonKind(self._depth + 1)).merge(inner)
        if len(self.fields) > _MOST_FIELDS:
            self.flags |= _Kind.WIDE
            self.fields.clear()

    def dump(self) -> list[Any]:
        """What has been seen, as JSON takes it."""
        items = None if self.items is None else self.items.dump()
        return [self.flags, items, {name: inner.dump() for name, inner in self.fields.items()}]

    @classmethod
    def load(cls, dumped: list[Any], depth: int = 0) -> "JsonKind":
        """Read what `dump` gave.

        Raises:
            ValueError, TypeError: it is something else.
        """
        kind = cls(depth)
        kind.flags, items, fields = int(dumped[0]), dumped[1], dumped[2]
        kind.items = None if items is None else cls.load(items, depth + 1)
        kind.fields = {name: cls.load(inner, depth + 1) for name, inner in fields.items()}
        return kind

    @property
    def is_container(self) -> bool:
        """Whether all values are lists, objects, or null."""
        return self.flags & ~_Kind.NULL in (_Kind.LIST, _Kind.OBJECT, _Kind.LIST | _Kind.OBJECT) or bool(
            self.flags & _Kind.WIDE and not self.flags & ~(_Kind.NULL | _Kind.LIST | _Kind.OBJECT | _Kind.WIDE)
        )

    def arrow_type(self) -> pa.DataType | None:
        """The type that holds all values exactly; None if none does."""
        kind = self.flags & ~_Kind.NULL
        if kind == _Kind.LIST:
            item = pa.null() if self.items is None else self.items.arrow_type()
            return None if item is None else pa.list_(item)
        if kind == _Kind.OBJECT and self.fields:
            types = {name: inner.arrow_type() for name, inner in self.fields.items()}
            return None if None in types.values() else pa.struct(list(types.items()))
        return _SCALARS.get(kind)


def kinds_in(flags: int) -> Iterator[int]:
    """The single kinds that flags are made of, without null."""
    return (kind for kind in _NAMES if flags & kind)


def name_of(kind: int) -> str:
    """A single kind for people."""
    return _NAMES[kind]
