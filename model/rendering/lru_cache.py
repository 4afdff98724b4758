"""What was computed lately, within a limit of bytes: data sets ask several questions of one image in a row."""

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

Value = TypeVar("Value")


class LruCache(Generic[Value]):
    """The values used last, as many as fit into `max_bytes`."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._values: OrderedDict[Hashable, tuple[Value, int]] = OrderedDict()
        self._bytes = 0

    def get(self, key: Hashable) -> Value | None:
        """The value put under `key`, unless others have taken its place."""
        if key not in self._values:
            return None
        self._values.move_to_end(key)
        return self._values[key][0]

    def put(self, key: Hashable, value: Value, nbytes: int) -> None:
        """Keep `value`, which takes `nbytes`, in the place of those that were used longest ago."""
        self._values[key] = (value, nbytes)
        self._bytes += nbytes
        while self._bytes > self._max_bytes:
            _, (_, dropped) = self._values.popitem(last=False)
            self._bytes -= dropped
