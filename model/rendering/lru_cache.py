"""A least-recently-used cache with a limit in bytes; data sets ask several questions about one image in a row."""

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

Value = TypeVar("Value")


class LruCache(Generic[Value]):
    """Keeps the values used last, as many as fit into `max_bytes`."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._values: OrderedDict[Hashable, tuple[Value, int]] = OrderedDict()
        self._bytes = 0

    def get(self, key: Hashable) -> Value | None:
        """The value of `key`; None where it was never put, or is evicted."""
        if key not in self._values:
            return None
        self._values.move_to_end(key)
        return self._values[key][0]

    def put(self, key: Hashable, value: Value, nbytes: int) -> None:
        """Put a value of `nbytes` under a key, and evict the least recently used ones beyond the limit.

        A value that is larger than the limit is not kept, and evicts no other.
        """
        if key in self._values:
            self._bytes -= self._values.pop(key)[1]
        if nbytes > self._max_bytes:
            return
        self._values[key] = (value, nbytes)
        self._bytes += nbytes
        while self._bytes > self._max_bytes:
            _, (_, evicted) = self._values.popitem(last=False)
            self._bytes -= evicted
