"""Gives declared models the processor classes that vLLM wants.

vLLM renders prompts through three classes per model (info, dummy inputs, processor). These three serve every declared
model: they read its declaration and call DeclaredRenderer, which the worker processes call with many rows. vLLM uses
them when it profiles memory at start-up, and for `LLM.generate`.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image
from vllm.inputs.engine import MultiModalInput
from vllm.multimodal import MULTIMODAL_REGISTRY as VLLM_MULTIMODAL_REGISTRY
from vllm.multimodal.inputs import MultiModalFieldConfig
from vllm.multimodal.processing import (
    BaseDummyInputsBuilder,
    BaseMultiModalProcessor,
    BaseProcessingInfo,
    ProcessorInputs,
    TimingContext,
)

from run_batch.model.checkpoint.missing_weights import install_weight_check
from run_batch.model.declaration import Declaration, DeclarationError, DummyData, RowError, declaration_of
from run_batch.model.rendering.declared_functions import failure
from run_batch.model.rendering.declared_renderer import DeclaredRenderer
from run_batch.model.rendering.feature_counts import install_feature_count_check


def install_processor(model_cls: type) -> None:
    """Register the processor of declared models with vLLM for `model_cls`, and install the checks of such models."""
    VLLM_MULTIMODAL_REGISTRY.register_processor(
        DeclaredProcessor,
        info=partial(DeclaredInfo, model_cls=model_cls),
        dummy_inputs=DeclaredDummyInputs,
    )(model_cls)  # type: ignore[type-var]
    install_feature_count_check(model_cls)
    install_weight_check(model_cls)


class DeclaredInfo(BaseProcessingInfo):
    """Tells vLLM about the model's inputs before there are any."""

    def __init__(self, ctx: Any, model_cls: type) -> None:
        super().__init__(ctx)
        self.model_cls = model_cls

    @property
    def declaration(self) -> Declaration:
        declaration = declaration_of(self.model_cls)
        assert declaration is not None
        return declaration

    def get_supported_mm_limits(self) -> Mapping[str, int | None]:
        return {"image": None} if self.declaration.mappers else {}

    def get_mm_max_tokens_per_item(self, seq_len: int, mm_counts: Mapping[str, int]) -> Mapping[str, int] | None:
        """None has vLLM measure the dummy data; without any, an image may take as many tokens as a sequence has."""
        return dict.fromkeys(mm_counts, seq_len) if self.declaration.dummy_data is None else None


class DeclaredDummyInputs(BaseDummyInputsBuilder[DeclaredInfo]):
    """Gives vLLM the declared dummy data; text only where none is declared."""

    def build(self, seq_len: int, mm_counts: Mapping[str, int]) -> DummyData:
        factory = self.info.declaration.dummy_data
        if factory is None:
            return DummyData()
        where = f"{self.info.model_cls.__name__}'s dummy data factory"
        try:
            dummy = factory(self.info.ctx, seq_len, mm_counts)
        except Exception as error:
            raise failure(where, factory, error) from error
        if not isinstance(dummy, DummyData):
            raise DeclarationError(f"{where} must return DummyData, found {type(dummy).__name__}")
        if len(dummy.images) != mm_counts.get("image", 0):
            raise DeclarationError(f"{where} gave {len(dummy.images)} images; asked for {mm_counts.get('image', 0)}")
        return dummy

    def get_dummy_text(self, mm_counts: Mapping[str, int]) -> str:
        return ""

    def get_dummy_mm_data(self, seq_len: int, mm_counts: Mapping[str, int], mm_options: Any) -> dict[str, Any]:
        return {"image": self.build(seq_len, mm_counts).images}


class DeclaredProcessor(BaseMultiModalProcessor[DeclaredInfo]):
    """Renders one prompt at a time, by DeclaredRenderer."""

    def __init__(self, info: DeclaredInfo, dummy_inputs: Any) -> None:
        super().__init__(info, dummy_inputs)
        self.renderer = DeclaredRenderer(info.ctx, info.declaration)

    def get_dummy_inputs(self, seq_len: int, mm_counts: Mapping[str, int], mm_options: Any) -> ProcessorInputs:
        dummy = self.dummy_inputs.build(seq_len, mm_counts)  # type: ignore[attr-defined]
        return ProcessorInputs(
            prompt=list(dummy.prompt_token_ids),
            mm_data_items=self.info.parse_mm_data({"image": dummy.images}, validate=False),
        )

    def apply(self, inputs: ProcessorInputs, timing_ctx: TimingContext) -> MultiModalInput:
        """Render one prompt, in place of vLLM's own method.

        Raises:
            RowError: the prompt cannot be rendered.
        """
        images = [_as_item(item) for items in inputs.mm_data_items.values() for item in items.get_all()]
        with timing_ctx.record("apply_declared_functions"):
            (rendered,) = self.renderer.render([inputs.prompt], [images])
        if isinstance(rendered, RowError):
            raise rendered
        return rendered  # type: ignore[return-value]

    def _get_mm_fields_config(
        self, hf_inputs: Any, hf_processor_mm_kwargs: Mapping[str, object]
    ) -> Mapping[str, MultiModalFieldConfig]:
        raise DeclarationError("declared models are rendered by apply() alone")

    def _get_prompt_updates(self, mm_items: Any, hf_processor_mm_kwargs: Any, out_mm_kwargs: Any) -> Any:
        raise DeclarationError("declared models are rendered by apply() alone")


def _as_item(item: Any) -> Any:
    """Convert an image from the form of vLLM's parser to that of mappers."""
    item = getattr(item, "media", item)
    if isinstance(item, Image.Image):
        return item
    if isinstance(item, np.ndarray) and item.dtype == np.uint8:
        return Image.fromarray(item)
    return torch.as_tensor(item)
