"""Renders rows for a model that vLLM ships, with vLLM's own processor."""

from collections.abc import Sequence
from functools import cached_property
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
from run_batch.model.rendering.retokenized_text import new_special_token
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


class VllmRenderer:
    """Renders rows for one model by vLLM's processor, one row at a time."""

    def __init__(self, processor: Any, placeholders: ImagePlaceholders) -> None:
        self._processor = processor
        self._mapping = VllmProcessor(processor, cache_bytes(_KEPT_BYTES) - text_bytes())
        self._placeholders = placeholders
        self._tokenizer = processor.info.get_tokenizer()
        # Some models' processors put the BOS where it belongs themselves, or their templates do.
        self.adds_special_tokens: bool = processor.info.default_tok_params.add_special_tokens

    def render(
        self, token_ids: Sequence[list[int]], images: Sequence[Sequence[RowImage]]
    ) -> list[EngineInput | RowError]:
        """Render each row; one that the processor refuses gives a RowError.

        Raises:
            SettingsError: the processor needs a package that is not installed.
        """
        try:
            return [self._render_one(*row) for row in zip(token_ids, images, strict=True)]
        finally:
            self._mapping.end_rows()

    def _render_one(self, token_ids: list[int], images: Sequence[RowImage]) -> EngineInput | RowError:
        try:
            self._placeholders.check(token_ids, len(images))
            if not images:
                return tokens_input(token_ids)
            rendered = self._mapping.apply(token_ids, images)
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
            if type(root) is type(self._failure_on_dummy_inputs):
                raise JobFault(f"the model's processor fails on vLLM's own dummy image: {describe(root)}") from error
            return RowError("image_processing", describe(root))
        finally:
            drop_decoded()

    def _check_text(self, token_ids: list[int], rendered: Any) -> None:
        ranges = sorted(
            rendered.get("mm_placeholders", {}).get("image", ()), key=lambda placeholder: placeholder.offset
        )
        found = new_special_token(self._tokenizer, token_ids, rendered["prompt_token_ids"], ranges)
        if found is not None:
            raise RowError(
                "image_processing", f"the model's processor would take text of the row for the special token {found}"
            )

    @cached_property
    def _failure_on_dummy_inputs(self) -> BaseException | None:
        """What the processor raises for the image that vLLM makes to profile memory; nothing is wrong with that."""
        try:
            inputs = self._processor.get_dummy_inputs(_DUMMY_TOKENS, {"image": 1}, {})
            self._processor.apply(inputs, TimingContext(enabled=False))
        except Exception as error:
            return root_of(error)
        return None
