"""vLLM's own processor for a model, with images that are equal mapped once.

Images are equal if their files are. By a file's digest, vLLM's encoder cache and its prefix cache know the image, too.
"""

from collections.abc import Mapping, Sequence
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
from run_batch.model.rendering.row_video import EncodedVideo
from run_batch.model.rendering.sole_tensors import LARGE_BYTES, SoleTensors
from run_batch.model.rendering.video_frames import FrameSampler

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
        sampler: of the frames of videos; None for a job without videos.
    """

    def __init__(self, processor: Any, cache_bytes: int, sampler: FrameSampler | None = None) -> None:
        self._processor, self._sampler = processor, sampler
        self._mapped = MappedImages(cache_bytes)
        self._has_large_images = False

    def end_rows(self) -> None:
        """End rows that are rendered together: these share their images even if the cache has no room for them."""
        self._mapped.forget_together()

    def apply(
        self, token_ids: list[int], images: Sequence[RowImage], videos: Sequence[EncodedVideo] = ()
    ) -> EngineInput:
        """Render one row that has images or videos.

        Raises:
            RowError: an image or a video cannot be decoded, all are too large together, or are mapped to values that
                are not finite.
            Exception: of any type, from the processor, for an image or a video that it cannot take.
        """
        try:
            return self._apply(token_ids, images, videos)
        finally:
            self._mapped.drop_new()

    def _apply(self, token_ids: list[int], images: Sequence[RowImage], videos: Sequence[EncodedVideo]) -> EngineInput:
        hashes = _hashes(images, videos)
        is_alone = len(images) + len(videos) == 1
        cache = self._mapped if is_alone or (not videos and self._maps_each_alone) else None
        data, pixels = self._decode(images, videos, hashes, cache)
        items = self._processor.info.parse_mm_data(data)
        if any(item is not None for decoded in data.values() for item in decoded):
            inputs = ProcessorInputs(token_ids, items, hashes, cache=cache)
            with SoleTensors() if self._has_large_images else nullcontext():
                rendered: EngineInput = self._processor.apply(inputs, TimingContext(enabled=False))
        else:
            rendered = self._apply_mapped(token_ids, items, hashes)
        self._check_finite(rendered)
        nbytes = tensor_bytes(rendered)
        self._has_large_images = nbytes >= LARGE_BYTES
        if self._sampler is not None and videos:
            self._sampler.processed(nbytes)
        self._mapped.keep_new(pixels)
        return rendered

    def _apply_mapped(self, token_ids: list[int], items: Any, hashes: Mapping[str, list[Any]]) -> EngineInput:
        """What the processor's `apply` does for a row whose items are all mapped, without its steps for the others."""
        own = self._processor
        are_mapped = {modality: [True] * len(known) for modality, known in hashes.items()}
        kwargs, updates = own._merge_mm_kwargs(self._mapped, hashes, are_mapped, {}, {})
        result = MultiModalProcessingResult(own._postprocess_prompt(token_ids), kwargs, hashes, updates)
        prompt_ids, found = own._maybe_apply_prompt_updates(items, result)
        ranges = {modality: [placeholder.to_range() for placeholder in all_] for modality, all_ in found.items()}
        return mm_input(prompt_token_ids=prompt_ids, mm_kwargs=kwargs, mm_hashes=result.hashes, mm_placeholders=ranges)

    def _decode(
        self,
        images: Sequence[RowImage],
        videos: Sequence[EncodedVideo],
        hashes: Mapping[str, list[Any]],
        cache: MappedImages | None,
    ) -> tuple[dict[str, list[Any]], dict[str, int]]:
        """What the processor takes, by modality, with None for what is mapped already; and pixels by hash."""
        known = {
            modality: [None if cache is None or mm_hash is None else cache.pixels_of(mm_hash) for mm_hash in all_]
            for modality, all_ in hashes.items()
        }
        data: dict[str, list[Any]] = {}
        pixels: dict[str, int] = {}
        if images:
            data["image"], numbers = self._decode_all(images, known["image"])
            pixels |= {mm_hash: n for mm_hash, n in zip(hashes["image"], numbers, strict=True) if mm_hash}
        if videos:
            data["video"], numbers = self._sample_all(videos, known["video"])
            pixels |= dict(zip(hashes["video"], numbers, strict=True))
        return data, pixels

    def _sample_all(self, videos: Sequence[EncodedVideo], known: Sequence[int | None]) -> tuple[list[Any], list[int]]:
        """The videos of a row as `_decode_all` gives its images."""
        if len(videos) == 1 and known[0] is not None and not self._needs_all_images:
            return [None], [known[0]]
        assert self._sampler is not None, "videos are refused without a sampler"
        sampled = self._sampler.sample(videos)
        return [(video.frames, dict(video.metadata)) for video in sampled], [video.pixels for video in sampled]

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
            decoded.append(_decode_image(image) if number is None or self._needs_all_images else None)
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
            RowError: `image_processing` or `video_processing`, for NaN or infinite values.
        """
        kwargs = rendered.get("mm_kwargs") or {}
        for modality, item in ((modality, item) for modality, items in kwargs.items() for item in items):
            for name, element in item.items() if self._mapped.is_new(item) else ():
                if not _all_finite(element.data):
                    message = f"vLLM's processor gave {name} with NaN or infinite values"
                    if modality == "video":
                        raise RowError("video_processing", message)
                    raise RowError("image_processing", message)


def _hashes(images: Sequence[RowImage], videos: Sequence[EncodedVideo]) -> dict[str, list[Any]]:
    """The hashes of a row's items by modality; None for an image that vLLM has to hash itself."""
    found: dict[str, list[Any]] = {
        "image": [image.digest.hex() if isinstance(image, EncodedImage) else None for image in images],
        "video": [video.digest.hex() for video in videos],
    }
    return {modality: hashes for modality, hashes in found.items() if hashes}


def _decode_image(image: RowImage) -> Image.Image | torch.Tensor:
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
