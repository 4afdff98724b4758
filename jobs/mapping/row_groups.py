"""Which rows of a batch are mapped together: many small ones at once, large ones one by one."""

from collections.abc import Sequence

# Of the tensors of rows that are mapped together, as far as those before them tell.
_MAPPED_BYTES = 8 << 20
# Rows whose largest sizes are remembered, once or twice as many.
_WINDOW_ROWS = 64


class RowGroups:
    """Ends a group of rows before their encoded images or their tensors would take much memory.

    Args:
        encoded_bytes: of the images of a group, unless it is a single row.
    """

    def __init__(self, encoded_bytes: int) -> None:
        self._most_encoded = encoded_bytes
        self._group: list[int] = []
        # Of the largest row: bytes of its encoded images, and of its tensors.
        self._largest: tuple[int, int] | None = None
        self._largest_before = (0, 0)
        self._rows = 0

    def begin(self) -> None:
        """Begin the first group of a batch."""
        self._group = []

    def add(self, encoded: int) -> None:
        """Add a row with `encoded` bytes of images to the group."""
        self._group.append(encoded)

    def ends_before(self, encoded: int) -> bool:
        """Whether the group is to be mapped before a row with `encoded` bytes of images is added."""
        if not self._group or self._largest is None:
            return bool(self._group)
        known_encoded, known_mapped = map(max, self._largest, self._largest_before)
        # A row with a much larger image than those before it may be mapped to much larger tensors, too.
        if max(encoded, self._group[-1]) > 2 * known_encoded:
            return True
        is_full = (len(self._group) + 1) * known_mapped > _MAPPED_BYTES
        return is_full or sum(self._group) + encoded > self._most_encoded

    def mapped(self, tensor_bytes: Sequence[int]) -> None:
        """Begin the next group, after this one was mapped to tensors of so many bytes for each row."""
        if self._group:
            if self._rows >= _WINDOW_ROWS:
                self._largest_before, self._largest, self._rows = self._largest or (0, 0), (0, 0), 0
            encoded, mapped = self._largest or (0, 0)
            self._largest = max(encoded, *self._group), max(mapped, *tensor_bytes)
            self._rows += len(self._group)
        self._group = []
