"""Decodes and maps the images of many rows to the tensors that a declared model takes."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias

import torch
from blake3 import blake3

from run_batch.model.declaration import MappedItem
from run_batch.model.images.decode import DecodedImage, Size
from run_batch.model.images.image_memory import cache_bytes, drop_decoded
from run_batch.model.images.row_image import EncodedImage, RowImage, decode_row_image
from run_batch.model.rendering.declared_functions import DeclaredFunctions, Tensors
from run_batch.model.rendering.engine_input import alone
from run_batch.model.rendering.lru_cache import LruCache

# Of mapped images that are kept in case the next rows hold them too, per worker process.
_MAPPED_BYTES = 128 << 20

# Of decoded images that are mapped together, per worker process: few enough to stay in a CPU cache until resized.
_DECODED_BYTES = 4 << 20

# A file's digest; any other object's id, which is unique as long as the caller holds the object.
Key: TypeAlias = bytes | int


class ImageMapper:
    """Maps images by one model's declared functions, and repeated images once."""

    def __init__(self, functions: DeclaredFunctions, needed_size: Callable[[Size], Size] | None = None) -> None:
        """See decode_image for `needed_size`."""
        self._functions = functions
        self._needed_size = needed_size
        self._mapped: LruCache[MappedItem] = LruCache(cache_bytes(_MAPPED_BYTES))

    def map(self, images: Sequence[RowImage]) -> list[MappedItem]:
        """Map all images; an image that is repeated, here or shortly before, is mapped once.

        Raises:
            RowError: one of the images cannot be decoded or mapped.
            DeclarationError: see DeclaredFunctions.
        """
        keys = [_key(image) for image in images]
        mapped: dict[Key, MappedItem] = {}
        new: dict[Key, RowImage] = {}
        for key, image in zip(keys, images, strict=True):
            kept = self._mapped.get(key)
            if kept is None:
                new[key] = image
            else:
                mapped[key] = kept
        try:
            for key, item in self._map_new(new):
                mapped[key] = item
                if isinstance(key, bytes):
                    own = {name: alone(tensor) for name, tensor in item.tensors.items()}
                    self._mapped.put(key, replace(item, tensors=own), _nbytes(item))
        finally:
            drop_decoded()
        return [mapped[key] for key in keys]

    def _map_new(self, images: Mapping[Key, RowImage]) -> Iterator[tuple[Key, MappedItem]]:
        """Decode and map, in groups of about `_DECODED_BYTES` of decoded images."""
        decoded: dict[Key, DecodedImage | torch.Tensor] = {}
        nbytes = 0
        for key, image in images.items():
            decoded[key] = decode_row_image(image, self._needed_size)
            nbytes += _decoded_bytes(decoded[key])
            if nbytes >= _DECODED_BYTES:
                yield from self._map_decoded(decoded)
                decoded, nbytes = {}, 0
                drop_decoded()
        yield from self._map_decoded(decoded)

    def _map_decoded(self, images: Mapping[Key, DecodedImage | torch.Tensor]) -> Iterator[tuple[Key, MappedItem]]:
        pixels = {key: image for key, image in images.items() if isinstance(image, DecodedImage)}
        if pixels:
            sizes = [(image.width, image.height) for image in pixels.values()]
            yield from _items(list(pixels), self._functions.map_pixels(list(pixels.values())), sizes)
        features = {key: image for key, image in images.items() if isinstance(image, torch.Tensor)}
        if features:
            tensors = self._functions.map_features(list(features.values()))
            yield from _items(list(features), tensors, [(0, 0)] * len(features))


def _items(keys: Sequence[Key], tensors: Tensors, sizes: Sequence[tuple[int, int]]) -> Iterator[tuple[Key, MappedItem]]:
    """Split the tensors of all images into one MappedItem per image.

    Args:
        sizes: (width, height) of each image in pixels.
    """
    for index, (key, size) in enumerate(zip(keys, sizes, strict=True)):
        own = {name: values[index] for name, values in tensors.items()}
        # Equal files give equal tensors, and a file's digest is known already.
        content_hash = key.hex() if isinstance(key, bytes) else hash_tensors(own)
        yield key, MappedItem("image", own, content_hash, *size)


def _key(image: RowImage) -> Key:
    return image.digest if isinstance(image, EncodedImage) else id(image)


def _decoded_bytes(image: DecodedImage | torch.Tensor) -> int:
    return image.nbytes if isinstance(image, torch.Tensor) else image.pixels.nbytes


def _nbytes(item: MappedItem) -> int:
    return sum(tensor.nbytes for tensor in item.tensors.values())


def hash_tensors(tensors: Mapping[str, torch.Tensor]) -> str:
    """BLAKE3 of names, dtypes, shapes and values: the key of a mapped item in vLLM's encoder and prefix caches."""
    digest = blake3()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
