"""Many tokenized prompts with their images at once, through what a model declares, to what vLLM's engine takes.

This is the only place where mappers and input processors are called: the worker processes call it with many rows,
vLLM's own processor (run_batch.model.rendering.declared_processor) with one, so both paths give the same result.
"""

import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from blake3 import blake3
from PIL import Image
from vllm.multimodal.processing import InputProcessingContext

from run_batch.model.declaration import (
    FEATURES,
    PIXELS,
    Declaration,
    DeclarationError,
    InputMapper,
    MappedItem,
    RowError,
    TokenizedPrompt,
)
from run_batch.model.images.decode import DecodedImage, decode_image, from_pil
from run_batch.model.images.features import decode_features, is_encoded_features
from run_batch.model.images.pixels import size_after_resize
from run_batch.model.images.row_image import EncodedImage, RowImage
from run_batch.model.rendering.bad_row_isolation import isolate_bad_rows
from run_batch.model.rendering.engine_input import EngineInput, engine_input
from run_batch.model.rendering.lru_cache import LruCache

# Mapped images that are kept in case that rows to come hold them too, per worker process.
_MAPPED_BYTES = 128 << 20

# Decoded images that are held at a time, per worker process: few enough to stay in its cache until they are resized.
_DECODED_BYTES = 4 << 20

Key: TypeAlias = bytes | int


class DeclaredRenderer:
    """Calls one model's mappers and input processor on many prompts."""

    def __init__(
        self, context: InputProcessingContext, declaration: Declaration, scaled_jpeg_decoding: bool = False
    ) -> None:
        """See decode_image for what `scaled_jpeg_decoding` means.

        Raises:
            DeclarationError: scaled decoding is asked for, and the model's pixel mapper is not a default one.
        """
        self._context = context
        self._declaration = declaration
        self._mapped: LruCache[MappedItem] = LruCache(_MAPPED_BYTES)
        self._needed_size: Callable[[tuple[int, int]], tuple[int, int]] | None = None
        if scaled_jpeg_decoding:
            self._needed_size = size_after_resize(declaration.mappers.get(PIXELS), context)
            if self._needed_size is None:
                raise DeclarationError(
                    f"preprocess.scaled_jpeg_decoding = true, but {declaration.model_cls.__name__} maps pixels by a "
                    "function of its own, which may need all of them"
                )

    def render(
        self, token_ids: Sequence[list[int]], images: Sequence[Sequence[RowImage]]
    ) -> list[EngineInput | RowError]:
        """Render all rows; one that cannot be mapped gives its RowError in its place, the others are untouched.

        Args:
            token_ids: of each row, the prompt with one placeholder token per image.
            images: of each row.

        Raises:
            DeclarationError: a mapper or input processor breaks its contract.
        """
        return isolate_bad_rows(self._render_all, list(zip(token_ids, images, strict=True)))

    def _render_all(self, rows: Sequence[tuple[list[int], Sequence[RowImage]]]) -> list[EngineInput]:
        mapped = iter(self._map_images([image for _, images in rows for image in images]))
        prompts = [TokenizedPrompt(ids, tuple(next(mapped) for _ in images)) for ids, images in rows]
        return [engine_input(prompt) for prompt in self._expand(prompts)]

    def _map_images(self, images: Sequence[RowImage]) -> list[MappedItem]:
        """Map each image once, also when several of these rows, or of the last ones, hold it."""
        keys = [_key(image) for image in images]
        mapped: dict[Key, MappedItem] = {}
        new: dict[Key, RowImage] = {}
        for key, image in zip(keys, images, strict=True):
            recent = self._mapped.get(key)
            if recent is None:
                new[key] = image
            else:
                mapped[key] = recent
        for key, item in self._map_new(new):
            mapped[key] = item
            if isinstance(key, bytes):
                self._mapped.put(key, item, _nbytes(item))
        return [mapped[key] for key in keys]

    def _map_new(self, images: Mapping[Key, RowImage]) -> Iterator[tuple[Key, MappedItem]]:
        """Decode and map, with no more decoded images at a time than fit into `_DECODED_BYTES`, or one."""
        decoded: dict[Key, DecodedImage | torch.Tensor] = {}
        nbytes = 0
        for key, image in images.items():
            decoded[key] = self._decode(image)
            nbytes += _decoded_bytes(decoded[key])
            if nbytes >= _DECODED_BYTES:
                yield from self._map_decoded(decoded)
                decoded, nbytes = {}, 0
        yield from self._map_decoded(decoded)

    def _decode(self, image: RowImage) -> DecodedImage | torch.Tensor:
        if isinstance(image, EncodedImage):
            if is_encoded_features(image.encoded):
                return decode_features(image.encoded)
            return decode_image(image.encoded, self._needed_size)
        return from_pil(image) if isinstance(image, Image.Image) else image

    def _map_decoded(self, images: Mapping[Key, DecodedImage | torch.Tensor]) -> Iterator[tuple[Key, MappedItem]]:
        for kind, taken in ((PIXELS, DecodedImage), (FEATURES, torch.Tensor)):
            items = {key: image for key, image in images.items() if isinstance(image, taken)}
            if not items:
                continue
            name, mapper = self._declaration.mapper_for(kind)
            tensors = self._call(f"input mapper for {name}", mapper, [_as_item(i, mapper) for i in items.values()])
            self._check_batched(name, tensors, len(items))
            for position, (key, image) in enumerate(items.items()):
                own = {name: values[position] for name, values in tensors.items()}
                size = (image.width, image.height) if isinstance(image, DecodedImage) else (0, 0)
                # Files that are equal are mapped to equal tensors, which take longer to hash.
                content_hash = key.hex() if isinstance(key, bytes) else hash_tensors(own)
                yield key, MappedItem("image", own, content_hash, *size)

    def _check_batched(self, key: str, tensors: Any, count: int) -> None:
        where = f"{self._declaration.model_cls.__name__}'s input mapper for {key}"
        if not isinstance(tensors, Mapping) or not tensors:
            raise DeclarationError(
                f"{where} must give keyword tensors (a mapping of name to tensor), found {type(tensors).__name__}"
            )
        for name, values in tensors.items():
            if isinstance(values, torch.Tensor) and values.ndim == 0:
                raise DeclarationError(f"{where} gave {name} without a batch dimension; stack one entry per item")
            entries_ok = isinstance(values, torch.Tensor) or (
                isinstance(values, list | tuple) and all(isinstance(v, torch.Tensor) for v in values)
            )
            if not entries_ok:
                raise DeclarationError(
                    f"{where} gave {name} as {type(values).__name__}; expected a tensor or a list of tensors"
                )
            if len(values) != count:
                raise DeclarationError(
                    f"{where} gave {len(values)} entries in {name} for {count} items; the first dimension must be "
                    "the items of the batch"
                )

    def _expand(self, prompts: list[TokenizedPrompt]) -> list[TokenizedPrompt]:
        processor = self._declaration.input_processor
        expanded = prompts if processor is None else self._call("input processor", processor, prompts)
        where = f"{self._declaration.model_cls.__name__}'s input processor"
        if not isinstance(expanded, list | tuple) or not all(isinstance(p, TokenizedPrompt) for p in expanded):
            raise DeclarationError(f"{where} must give a list of TokenizedPrompt; use TokenizedPrompt.expand")
        if len(expanded) != len(prompts):
            raise DeclarationError(f"{where} took {len(prompts)} prompts and gave {len(expanded)} back")
        for before, after in zip(prompts, expanded, strict=True):
            if len(after.placeholders) != len(before.items):
                raise DeclarationError(
                    f"{where} gave {len(after.placeholders)} placeholder ranges for a prompt with "
                    f"{len(before.items)} images; give one range per image (TokenizedPrompt.expand does)"
                )
            _check_ranges(where, after)
            _check_feature_counts(after)
        return list(expanded)

    def _call(self, what: str, function: Callable[..., Any], argument: Any) -> Any:
        """Call a function of the model's author; what goes wrong in it is said with its name and place."""
        try:
            return function(self._context, argument)
        except (RowError, DeclarationError):
            raise
        except Exception as error:
            if self._declaration.model_cls.__module__.startswith("run_batch."):
                raise
            frames = traceback.extract_tb(error.__traceback__)
            # Ours, then the function that was called, then perhaps what it called in libraries.
            place = frames[min(1, len(frames) - 1)]
            raise DeclarationError(
                f"{self._declaration.model_cls.__name__}'s {what} failed: {type(error).__name__}: {error} "
                f"({place.filename}, line {place.lineno})"
            ) from error


def _check_ranges(where: str, prompt: TokenizedPrompt) -> None:
    end = 0
    for placeholder in prompt.placeholders:
        if placeholder.length < 1 or placeholder.offset < end:
            raise DeclarationError(f"{where} gave placeholder ranges that are empty, overlap or are out of order")
        end = placeholder.offset + placeholder.length
    if end > len(prompt.prompt_token_ids):
        raise DeclarationError(
            f"{where} gave a placeholder range that ends at token {end} of a prompt of {len(prompt.prompt_token_ids)}"
        )


def _check_feature_counts(prompt: TokenizedPrompt) -> None:
    """Precomputed features tell their number: it has to be that of the placeholder tokens."""
    for item, placeholder in zip(prompt.items, prompt.placeholders, strict=True):
        features = item.tensors.get("image_features")
        if features is not None and len(features) != placeholder.num_features:
            raise RowError(
                "placeholders",
                f"the prompt has {placeholder.num_features} placeholder tokens for an image with {len(features)} "
                "features",
            )


def _key(image: RowImage) -> Key:
    # Objects that are no files are told apart by themselves, and only as long as the caller holds them.
    return image.digest if isinstance(image, EncodedImage) else id(image)


def _decoded_bytes(image: DecodedImage | torch.Tensor) -> int:
    return image.nbytes if isinstance(image, torch.Tensor) else image.pixels.nbytes


def _as_item(image: DecodedImage | torch.Tensor, mapper: InputMapper) -> Any:
    if isinstance(image, torch.Tensor):
        return image
    return image.pixels if getattr(mapper, "takes_arrays", False) else image.to_pil()


def _nbytes(item: MappedItem) -> int:
    return sum(tensor.nbytes for tensor in item.tensors.values())


def hash_tensors(tensors: Mapping[str, torch.Tensor]) -> str:
    """Identity of a mapped item, for vLLM's encoder and prefix caches: BLAKE3 of names, dtypes, shapes, values."""
    digest = blake3()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
