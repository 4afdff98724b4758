"""vLLM's own processor for a model, with images that are equal mapped once.

Images are equal if their files are. By a file's digest, vLLM's encoder cache and its prefix cache know the image, too.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from functools import cached_property
from typing import Any

import numpy as np
import torch
from PIL import Image
from vllm.inputs.engine import mm_input
from vllm.multimodal.processing import BaseMultiModalProcessor, ProcessorInputs, TimingContext
from vllm.multimodal.processing.processor import MultiModalProcessingResult

from run_batch.model.declaration import RowError
from run_batch.model.images.array_image import ArrayImage
from run_batch.model.images.row_image import EncodedImage, RowImage, decode_row_image
from run_batch.model.rendering.engine_input import EngineInput, tensor_bytes
from run_batch.model.rendering.finite_values import is_finite
from run_batch.model.rendering.mapped_images import MappedImages
from run_batch.model.rendering.sole_tensors import LARGE_BYTES, SoleTensors

# In all images of one row together: vLLM's processors take a row's images decoded, all at once.
_ROW_PIXELS = 200_000_000

# What a processor may do with an image besides mapping it, and most leave as it is.
_STEPS = ("apply", "_cached_apply_hf_processor", "_maybe_apply_prompt_updates")

# Widths and heights that processors cut into tiles, or scale, in different ways.
_PROBES = ((224, 224), (1344, 448))


class VllmProcessor:
    """Maps the images of rows and expands their prompts, one row at a time.

    Args:
        processor: a BaseMultiModalProcessor of vLLM.
        cache_bytes: of mapped images that are kept in case the next rows hold them, too.
    """

    def __init__(self, processor: Any, cache_bytes: int) -> None:
        self._processor = processor
        self._mapped = MappedImages(cache_bytes)
        self._has_large_images = False

    def end_rows(self) -> None:
        """End rows that are rendered together: these share their images even if the cache has no room for them."""
        self._mapped.forget_together()

    def apply(self, token_ids: list[int], images: Sequence[RowImage]) -> EngineInput:
        """Render one row that has images.

        Raises:
            RowError: an image cannot be decoded, all are too large together, or are mapped to values that are not
                finite.
            Exception: of any type, from the processor, for an image that it cannot take.
        """
        try:
            return self._apply(token_ids, images)
        finally:
            self._mapped.drop_new()

    def _apply(self, token_ids: list[int], images: Sequence[RowImage]) -> EngineInput:
        hashes = [image.digest.hex() if isinstance(image, EncodedImage) else None for image in images]
        cache = self._mapped if len(images) == 1 or self._maps_each_alone else None
        known = [None if cache is None or mm_hash is None else cache.pixels_of(mm_hash) for mm_hash in hashes]
        decoded, pixels = self._decode_all(images, known)
        items = self._processor.info.parse_mm_data({"image": decoded})
        if any(image is not None for image in decoded):
            inputs = ProcessorInputs(token_ids, items, {"image": hashes}, cache=cache)
            with SoleTensors() if self._has_large_images else nullcontext():
                rendered: EngineInput = self._processor.apply(inputs, TimingContext(enabled=False))
        else:
            rendered = self._apply_mapped(token_ids, items, [str(mm_hash) for mm_hash in hashes])
        self._check_finite(rendered)
        self._has_large_images = tensor_bytes(rendered) >= LARGE_BYTES
        self._mapped.keep_new({mm_hash: number for mm_hash, number in zip(hashes, pixels, strict=True) if mm_hash})
        return rendered

    def _apply_mapped(self, token_ids: list[int], items: Any, hashes: list[str]) -> EngineInput:
        """What the processor's `apply` does for a row whose images are all mapped, without its steps for the others."""
        own = self._processor
        kwargs, updates = own._merge_mm_kwargs(self._mapped, {"image": hashes}, {"image": [True] * len(hashes)}, {}, {})
        result = MultiModalProcessingResult(own._postprocess_prompt(token_ids), kwargs, {"image": hashes}, updates)
        prompt_ids, found = own._maybe_apply_prompt_updates(items, result)
        ranges = {modality: [placeholder.to_range() for placeholder in all_] for modality, all_ in found.items()}
        return mm_input(prompt_token_ids=prompt_ids, mm_kwargs=kwargs, mm_hashes=result.hashes, mm_placeholders=ranges)

    def _decode_all(
        self, images: Sequence[RowImage], known: Sequence[int | None]
    ) -> tuple[list[Image.Image | torch.Tensor | None], list[int]]:
        """The images of a row, None for one that is mapped already, and the pixels of each.

        Args:
            known: the pixels of images that are mapped already.
        """
        decoded: list[Image.Image | torch.Tensor | None] = []
        pixels: list[int] = []
        for image, number in zip(images, known, strict=True):
            decoded.append(_decode(image) if number is None or self._needs_all_images else None)
            pixels.append(_pixels(decoded[-1]) if number is None else number)
            total = sum(pixels)
            if total > _ROW_PIXELS:
                raise RowError("image_too_large", f"{total:,} pixels in all images of the row; limit: {_ROW_PIXELS:,}")
        return decoded, pixels

    @cached_property
    def _needs_all_images(self) -> bool:
        """Whether the processor wants those images of a row, too, that it has mapped before."""
        own, base = type(self._processor), BaseMultiModalProcessor
        return any(getattr(own, step) is not getattr(base, step) for step in _STEPS)

    @cached_property
    def _maps_each_alone(self) -> bool:
        """Whether an image is mapped in a row with others as it is alone; some processors pad to the largest one."""
        probes = [ArrayImage(np.indices((h, w, 3)).sum(0).astype(np.uint8)) for w, h in _PROBES]
        try:
            together = self._map(probes)
            return together == [mapped for probe in probes for mapped in self._map([probe])]
        # A processor may raise anything, such as for two images.
        except Exception:
            return False

    def _map(self, images: Sequence[Image.Image]) -> list[tuple[Any, list[list[int]]]]:
        """For each image its tensors, and the token ids that take its place."""
        items = self._processor.info.parse_mm_data({"image": list(images)}, validate=False)
        inputs = ProcessorInputs([], items, {"image": [str(number) for number in range(len(images))]})
        mapped = self._processor._apply_hf_processor(inputs, TimingContext(enabled=False))
        updates = [[update.content.full for update in updates] for updates in mapped.prompt_updates["image"]]
        return list(zip(mapped.kwargs["image"], updates, strict=True))

    def _check_finite(self, rendered: EngineInput) -> None:
        """Check what has been mapped; a text from NaN looks like any other.

        Raises:
            RowError: `image_processing`, for NaN or infinite values.
        """
        for item in (item for items in (rendered.get("mm_kwargs") or {}).values() for item in items):
            for name, element in item.items() if self._mapped.is_new(item) else ():
                if not _all_finite(element.data):
                    raise RowError("image_processing", f"vLLM's processor gave {name} with NaN or infinite values")


def _decode(image: RowImage) -> Image.Image | torch.Tensor:
    if not isinstance(image, EncodedImage):
        return image
    decoded = decode_row_image(image)
    return decoded if isinstance(decoded, torch.Tensor) else ArrayImage(decoded.pixels)


def _pixels(image: Image.Image | torch.Tensor | None) -> int:
    return image.width * image.height if isinstance(image, Image.Image) else 0


def _all_finite(data: Any) -> bool:
    """Whether tensors, in lists at any depth, are finite."""
    if isinstance(data, torch.Tensor):
        return is_finite(data)
    return not isinstance(data, list | tuple) or all(map(_all_finite, data))
