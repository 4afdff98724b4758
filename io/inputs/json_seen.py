"""What the columns of JSON hold in all rows, and so of which types they are."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from run_batch.io.inputs.columns import Columns
from run_batch.io.inputs.json_kinds import JsonKind, kinds_in, name_of


@dataclass(slots=True)
class Seen:
    """What the columns of files hold.

    Attributes:
        kinds: of each column.
        first: the first place of each kind of value in each column, for people.
    """

    kinds: dict[str, JsonKind] = field(default_factory=dict)
    first: dict[str, dict[int, str]] = field(default_factory=dict)

    def add(self, row: Mapping[str, Any], place: str) -> None:
        """See a row, which is at a place that is named so for people."""
        for name, value in row.items():
            kind = self.kinds.get(name)
            if kind is None:
                kind = self.kinds[name] = JsonKind()
                self.first[name] = {}
            before = kind.flags
            kind.add(value)
            if kind.flags != before:
                for flag in kinds_in(kind.flags & ~before):
                    self.first[name][flag] = place

    def merge(self, other: "Seen") -> None:
        """See what another one has seen, in files that come later."""
        for name, kind in other.kinds.items():
            self.kinds.setdefault(name, JsonKind()).merge(kind)
            self.first[name] = {**other.first[name], **self.first.get(name, {})}

    def dump(self) -> list[Any]:
        """What has been seen, as JSON takes it."""
        return [[name, kind.dump(), list(self.first[name].items())] for name, kind in self.kinds.items()]

    @classmethod
    def load(cls, dumped: list[Any]) -> "Seen":
        """Read what `dump` gave.

        Raises:
            ValueError, TypeError: it is something else.
        """
        kinds = {name: JsonKind.load(kind) for name, kind, _ in dumped}
        return cls(kinds, {name: {int(flag): place for flag, place in first} for name, _, first in dumped})

    def columns(self) -> Columns:
        """The columns, in the types that hold all values."""
        fields, unusable = [], {}
        for name, kind in self.kinds.items():
            found = kind.arrow_type()
            if found is None and not kind.is_container:
                shown = ", ".join(f"{name_of(flag)} in {place}" for flag, place in self.first[name].items())
                unusable[name] = f"holds {shown}; no type holds the values of all: convert some"
            fields.append(pa.field(name, pa.string() if found is None else found))
        return Columns(pa.schema(fields), unusable)
