"""Images that a worker has mapped by vLLM's own processor, kept in case the next rows hold them, too.

vLLM's processors look into a cache of this form by the hash of an image. Equal files have an equal hash, and an image
that is found is neither decoded nor mapped.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from vllm.multimodal.cache import BaseMultiModalProcessorCache
from vllm.multimodal.inputs import MultiModalKwargsItem
from vllm.utils.cache import CacheInfo

from run_batch.model.rendering.engine_input import alone, item_bytes
from run_batch.model.rendering.lru_cache import LruCache

# Of a token id in a list, where most are the same object.
_TOKEN_ID_BYTES = 8


@dataclass(frozen=True, slots=True)
class _Mapped:
    """One image as the processor has mapped it.

    Attributes:
        item: its tensors.
        updates: what stands for it in a prompt.
        pixels: of the decoded image; 0 if it is not one.
    """

    item: MultiModalKwargsItem
    updates: Sequence[Any]
    pixels: int


class MappedImages(BaseMultiModalProcessorCache):
    """The images used last, as many as fit into `max_bytes`, and all of the rows that are rendered together.

    The latter take no memory of their own: the rendered rows hold them.
    """

    def __init__(self, max_bytes: int) -> None:
        self._kept: LruCache[_Mapped] = LruCache(max_bytes)
        self._together: dict[str, _Mapped] = {}
        self._new: dict[str, _Mapped] = {}

    def pixels_of(self, mm_hash: str) -> int | None:
        """Pixels of an image that is there, and stays there until `forget_together`; None for one that is not."""
        if mm_hash not in self._together:
            kept = self._kept.get(mm_hash)
            if kept is None:
                return None
            self._together[mm_hash] = kept
        return self._together[mm_hash].pixels

    def is_cached_item(self, mm_hash: str) -> bool:
        return self.pixels_of(mm_hash) is not None

    def get_and_update_item(
        self, mm_item: tuple[MultiModalKwargsItem, Sequence[Any]] | None, mm_hash: str
    ) -> tuple[MultiModalKwargsItem, Sequence[Any]]:
        """An image that has just been mapped, as it is, or the one that is there."""
        if mm_item is not None:
            self._new[mm_hash] = _Mapped(*mm_item, pixels=0)
            return mm_item
        mapped = self._together[mm_hash]
        return mapped.item, mapped.updates

    def is_new(self, item: MultiModalKwargsItem) -> bool:
        """Whether an item of a rendered row has not been there before."""
        return all(item is not mapped.item for mapped in self._together.values())

    def keep_new(self, pixels: Mapping[str, int]) -> None:
        """Keep the images that have been mapped since the last call.

        Args:
            pixels: of each decoded image, by its hash.
        """
        for mm_hash, mapped in self._new.items():
            mapped = self._together[mm_hash] = replace(mapped, pixels=pixels.get(mm_hash, 0))
            mapped = replace(mapped, item=_own(mapped.item))
            tokens = sum(len(update.content.full) for update in mapped.updates)
            self._kept.put(mm_hash, mapped, item_bytes(mapped.item) + _TOKEN_ID_BYTES * tokens)
        self._new = {}

    def drop_new(self) -> None:
        """Drop the images that have been mapped since: their row has failed."""
        self._new = {}

    def forget_together(self) -> None:
        """End the rows that are rendered together: whoever has them holds their images now."""
        self._together = {}

    def touch_sender_cache_item(self, mm_hash: str) -> None:
        return

    def clear_cache(self) -> None:
        raise NotImplementedError

    def make_stats(self, *, delta: bool = False) -> CacheInfo:
        raise NotImplementedError


def _own(item: MultiModalKwargsItem) -> MultiModalKwargsItem:
    """The item with memory of its own: the tensors of a row with several images are parts of larger ones."""
    return MultiModalKwargsItem({name: replace(element, data=alone(element.data)) for name, element in item.items()})
