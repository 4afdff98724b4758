"""Which rows of a batch are mapped together: many small ones at once, large ones one by one."""

from collections.abc import Sequence
from typing import TypeAlias

from run_batch.jobs.mapping.row_images import nbytes_of
from run_batch.model.images.row_image import EncodedImage, RowImage
from run_batch.model.rendering.row_video import EncodedVideo

# Of the tensors of rows that are mapped together, as far as those before them tell.
_MAPPED_BYTES = 8 << 20
# Rows whose largest sizes are remembered, once or twice as many.
_WINDOW_ROWS = 64


_Item: TypeAlias = RowImage | EncodedVideo


class RowGroups:
    """Ends a group of rows before their encoded images or their tensors would take much memory.

    A row whose images are all in its group adds no tensors: equal images are mapped once, and sent once.

    Args:
        encoded_bytes: of the images of a group, unless it is a single row.
    """

    def __init__(self, encoded_bytes: int) -> None:
        self._most_encoded = encoded_bytes
        # Of the largest row: bytes of its encoded images, and of its tensors.
        self._largest: tuple[int, int] | None = None
        self._largest_before = (0, 0)
        self._rows = 0
        self.begin()

    def begin(self) -> None:
        """Begin the first group of a batch."""
        self._group: list[int] = []
        self._digests: set[bytes] = set()
        self._mapped_rows = 0

    def add(self, images: Sequence[_Item]) -> None:
        """Add a row with its images and videos to the group."""
        self._mapped_rows += not self._repeats(images)
        self._digests.update(filter(None, map(_digest, images)) if _are_mapped_once(images) else ())
        self._group.append(_encoded_bytes(images))

    def ends_before(self, images: Sequence[_Item]) -> bool:
        """Whether the group is to be mapped before a row with these images and videos is added."""
        if not self._group:
            return False
        encoded = _encoded_bytes(images)
        if self._repeats(images):
            return sum(self._group) + encoded > self._most_encoded
        if self._largest is None:
            return True
        known_encoded, known_mapped = map(max, self._largest, self._largest_before)
        # A row with a much larger image than those before it may be mapped to much larger tensors, too.
        if max(encoded, self._group[-1]) > 2 * known_encoded:
            return True
        is_full = (self._mapped_rows + 1) * known_mapped > _MAPPED_BYTES
        return is_full or sum(self._group) + encoded > self._most_encoded

    def _repeats(self, images: Sequence[_Item]) -> bool:
        return _are_mapped_once(images) and bool(images) and all(_digest(image) in self._digests for image in images)

    def mapped(self, tensor_bytes: Sequence[int]) -> None:
        """Begin the next group, after this one was mapped to tensors of so many bytes for each row."""
        if self._group:
            if self._rows >= _WINDOW_ROWS:
                self._largest_before, self._largest, self._rows = self._largest or (0, 0), (0, 0), 0
            encoded, mapped = self._largest or (0, 0)
            self._largest = max(encoded, *self._group), max(mapped, *tensor_bytes)
            self._rows += len(self._group)
        self.begin()


def _digest(image: _Item) -> bytes | None:
    return image.digest if isinstance(image, EncodedImage | EncodedVideo) else None


def _are_mapped_once(images: Sequence[_Item]) -> bool:
    """Whether equal ones in the next rows are not mapped again; videos beside others are."""
    return len(images) == 1 or not any(isinstance(image, EncodedVideo) for image in images)


def _encoded_bytes(images: Sequence[_Item]) -> int:
    return sum(map(nbytes_of, images))
