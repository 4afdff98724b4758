"""Renders rows for a model that vLLM ships, with vLLM's own processor."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any

from vllm.inputs.engine import tokens_input
from vllm.multimodal.processing import TimingContext

from run_batch.model.checkpoint.missing_package import missing_package
from run_batch.model.declaration import JobFault, RowError
from run_batch.model.images.image_memory import cache_bytes, drop_decoded
from run_batch.model.images.row_image import RowImage
from run_batch.model.rendering.engine_input import EngineInput
from run_batch.model.rendering.image_placeholders import ImagePlaceholders
from run_batch.model.rendering.job_faults import describe, raise_if_no_rows_fault, root_of
from run_batch.model.rendering.retokenized_text import SpecialTokenCheck
from run_batch.model.rendering.row_video import EncodedVideo
from run_batch.model.rendering.video_frames import FrameSampler
from run_batch.model.rendering.vllm_processor import VllmProcessor

# Of what is kept in case the next rows hold the same images, or images of the same size, per worker process. An eighth
# is for the texts that processors write for images.
_KEPT_BYTES = 128 << 20
_TEXTS = 8

# A length of sequences that any model has; vLLM makes its dummy image no larger than fits.
_DUMMY_TOKENS = 1024


def text_bytes() -> int:
    """Bytes of the texts that are to be kept."""
    return cache_bytes(_KEPT_BYTES) // _TEXTS


@dataclass(frozen=True, slots=True)
class RowVideos:
    """How the rows of a job have videos.

    Attributes:
        placeholders: of videos, in prompts.
        sampler: of their frames.
        in_column: whether a column holds them. Otherwise messages may, and no other text stands for any.
    """

    placeholders: ImagePlaceholders
    sampler: FrameSampler
    in_column: bool

    @classmethod
    def of(cls, processor: Any, model_config: Any, model_cls: Any, in_column: bool) -> "RowVideos | None":
        """Those of a model; None where it takes no videos, or engine.limit_mm_per_prompt leaves no room for any.

        Raises:
            SettingsError: engine.media_io_kwargs.video does not fit the model.
        """
        info = processor.info
        if "video" not in info.supported_mm_limits or info.allowed_mm_limits.get("video") == 0:
            return None
        # GLM-4V shows the frames of a video by the tokens of images.
        images = ImagePlaceholders(processor, model_cls.get_placeholder_str)
        placeholders = ImagePlaceholders(processor, model_cls.get_placeholder_str, "video", images)
        if in_column:
            placeholders.text(1)  # which may have to ask the processor
        return cls(placeholders, FrameSampler(model_config), in_column)


class VllmRenderer:
    """Renders rows for one model by vLLM's processor, one row at a time.

    Args:
        videos: how rows have videos; None for a job without any.
    """

    def __init__(self, processor: Any, placeholders: ImagePlaceholders, videos: RowVideos | None = None) -> None:
        self._processor = processor
        kept = cache_bytes(_KEPT_BYTES) - text_bytes()
        self._mapping = VllmProcessor(processor, kept, None if videos is None else videos.sampler)
        self._placeholders, self._videos = placeholders, videos
        self._special_tokens = SpecialTokenCheck(processor.info.get_tokenizer())
        # Some models' processors put the BOS where it belongs themselves, or their templates do.
        self.adds_special_tokens: bool = processor.info.default_tok_params.add_special_tokens

    def render(
        self,
        token_ids: Sequence[list[int]],
        images: Sequence[Sequence[RowImage]],
        videos: Sequence[Sequence[EncodedVideo]] | None = None,
    ) -> list[EngineInput | RowError]:
        """Render each row; one that the processor refuses gives a RowError.

        Args:
            videos: of each row; None for rows without any.

        Raises:
            SettingsError: the processor needs a package that is not installed.
        """
        own = [()] * len(images) if videos is None else videos
        try:
            return [self._render_one(*row) for row in zip(token_ids, images, own, strict=True)]
        finally:
            self._mapping.end_rows()

    def _render_one(
        self, token_ids: list[int], images: Sequence[RowImage], videos: Sequence[EncodedVideo]
    ) -> EngineInput | RowError:
        try:
            self._placeholders.check(token_ids, len(images))
            if self._videos is not None and (videos or self._videos.in_column):
                self._videos.placeholders.check(token_ids, len(videos))
            if not images and not videos:
                return tokens_input(token_ids)
            rendered = self._mapping.apply(token_ids, images, videos)
            self._check_text(token_ids, rendered)
            return rendered
        except RowError as error:
            return error
        # The processors of vLLM and transformers raise exceptions of any type for images that they cannot take.
        except Exception as error:
            missing = missing_package(error)
            if missing is not None:
                raise JobFault(missing) from error
            raise_if_no_rows_fault(error)
            root = root_of(error)
            if videos:
                return RowError("video_processing", describe(root))
            if type(root) is type(self._failure_on_dummy_inputs):
                raise JobFault(f"the model's processor fails on vLLM's own dummy image: {describe(root)}") from error
            return RowError("image_processing", describe(root))
        finally:
            drop_decoded()

    def _check_text(self, token_ids: list[int], rendered: Any) -> None:
        found_ranges = chain.from_iterable(rendered.get("mm_placeholders", {}).values())
        ranges = sorted(found_ranges, key=lambda placeholder: placeholder.offset)
        self._special_tokens.check(token_ids, rendered["prompt_token_ids"], ranges)

    @cached_property
    def _failure_on_dummy_inputs(self) -> BaseException | None:
        """What the processor raises for the image that vLLM makes to profile memory; nothing is wrong with that."""
        try:
            inputs = self._processor.get_dummy_inputs(_DUMMY_TOKENS, {"image": 1}, {})
            self._processor.apply(inputs, TimingContext(enabled=False))
        except Exception as error:
            return root_of(error)
        return None
