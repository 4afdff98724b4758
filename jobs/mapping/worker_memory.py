"""The memory that one worker process may take for rows, as its pool tells it."""

from dataclasses import dataclass

# Of a worker's share: for images that are decoded without waiting for a turn, and for encoded images that wait to be
# mapped, for those that are downloaded ahead, for mapped images that may come again, and for freed memory: in the heap,
# and as much in the arena.
_FOR_DECODING, _FOR_ENCODED, _FOR_DOWNLOADS, _FOR_CACHE, _KEPT = 3, 8, 8, 6, 8
# More than that does not make it faster.
_MOST_KEPT = 128 << 20


@dataclass(frozen=True, slots=True)
class WorkerMemory:
    """What a worker may take, in bytes; none of it changes a result.

    Attributes:
        batch_bytes: the tensors of one batch; the rows that do not fit are given back.
        share: for all but rows.
        rows: for all rows on their way, those of other workers among them.
        turns: path of the file by whose lock the workers take turns to decode large images; None for no turns.
    """

    batch_bytes: int = 1 << 30
    share: int = 1 << 30
    rows: int = 4 << 30
    turns: str | None = None

    @property
    def encoded_bytes(self) -> int:
        """Of encoded images that are read before they are mapped together."""
        return self.share // _FOR_ENCODED

    @property
    def download_bytes(self) -> int:
        """Of images that are downloaded before their rows are mapped."""
        return self.share // _FOR_DOWNLOADS

    @property
    def cache_bytes(self) -> int:
        """Of images that are kept in case they come again."""
        return self.share // _FOR_CACHE

    @property
    def kept_bytes(self) -> int:
        """That have been freed and are kept for what comes next, in the heap; as many again are kept in the arena."""
        return min(_MOST_KEPT, self.share // _KEPT)

    @property
    def arena_bytes(self) -> int:
        """That mapped rows may take in this worker's arena, with those that are kept in case they come again."""
        return self.rows + self.share

    @property
    def decode_bytes(self) -> int:
        """Of images that are decoded while other workers decode, too."""
        return self.share // _FOR_DECODING


# Of a process that maps rows alone, such as that of `run-batch check`.
PLENTY = WorkerMemory()
