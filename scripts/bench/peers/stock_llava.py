"""The benchmark's model as used with plain vLLM: with a vLLM processor that calls transformers' image processor.

vLLM's llava module needs torchvision, and resizes with it, not with Pillow. So the peers use the same layers with the
three processor classes that vLLM requires, which work like those of vLLM's own LLaVA: tokenizer and image processor of
the checkpoint, one prompt at a time. Listed as a plugin, this module registers the model in every process.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from transformers import AutoImageProcessor, BatchFeature
from vllm import ModelRegistry
from vllm.multimodal import MULTIMODAL_REGISTRY
from vllm.multimodal.inputs import MultiModalFieldConfig
from vllm.multimodal.processing import (
    BaseDummyInputsBuilder,
    BaseMultiModalProcessor,
    BaseProcessingInfo,
    PromptReplacement,
    PromptUpdate,
)

from run_batch.model.families.llava import LlavaForConditionalGeneration, image_feature_size


class StockInfo(BaseProcessingInfo):
    def get_supported_mm_limits(self) -> Mapping[str, int | None]:
        return {"image": None}


class StockDummyInputs(BaseDummyInputsBuilder[StockInfo]):
    def get_dummy_text(self, mm_counts: Mapping[str, int]) -> str:
        return "<image>" * mm_counts.get("image", 0)

    def get_dummy_mm_data(self, seq_len: int, mm_counts: Mapping[str, int], mm_options: Any) -> dict[str, Any]:
        size = self.info.get_hf_config().vision_config.image_size
        count = mm_counts.get("image", 0)
        return {"image": self._get_dummy_images(width=size, height=size, num_images=count)}


class StockProcessor(BaseMultiModalProcessor[StockInfo]):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._image_processor = AutoImageProcessor.from_pretrained(self.info.ctx.model_config.model, backend="pil")

    def _call_hf_processor(self, hf_data: Mapping[str, Any], hf_kwargs: Mapping[str, object]) -> BatchFeature:
        return self._image_processor(hf_data["images"], return_tensors="pt")

    def _get_mm_fields_config(
        self, hf_inputs: BatchFeature, hf_processor_mm_kwargs: Mapping[str, object]
    ) -> Mapping[str, MultiModalFieldConfig]:
        return {"pixel_values": MultiModalFieldConfig.batched("image")}

    def _get_prompt_updates(
        self, mm_items: Any, hf_processor_mm_kwargs: Mapping[str, object], out_mm_kwargs: Any
    ) -> Sequence[PromptUpdate]:
        config = self.info.get_hf_config()
        token = config.image_token_index
        size = image_feature_size(config)
        return [PromptReplacement(modality="image", target=[token], replacement=lambda _: [token] * size)]


@MULTIMODAL_REGISTRY.register_processor(StockProcessor, info=StockInfo, dummy_inputs=StockDummyInputs)
class StockLlava(LlavaForConditionalGeneration):
    """LLaVA that takes float32 pixel_values, as transformers' image processor returns them."""


ModelRegistry.register_model("StockLlava", StockLlava)
