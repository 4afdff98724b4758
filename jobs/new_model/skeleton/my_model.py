"""MyModel: a vision tower, a projector and a language model, as LLaVA has them."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn
from transformers import AutoConfig, LlamaConfig, PreTrainedConfig
from vllm.config import VllmConfig
from vllm.model_executor.layers.linear import ColumnParallelLinear, RowParallelLinear
from vllm.model_executor.models.interfaces import SupportsMultiModal
from vllm.model_executor.models.utils import AutoWeightsLoader, init_vllm_registered_model, maybe_prefix

from run_batch.model import INPUT_REGISTRY, MULTIMODAL_REGISTRY, DummyData, TokenizedPrompt


class MyModelConfig(PreTrainedConfig):
    model_type = "my_model"
    sub_configs = {"text_config": LlamaConfig}  # noqa: RUF012

    def __init__(
        self,
        text_config: Any = None,
        image_size: int = 32,
        patch_size: int = 8,
        vision_width: int = 48,
        image_token_id: int = 0,
        **kwargs: Any,
    ) -> None:
        self.text_config = LlamaConfig(**text_config) if isinstance(text_config, dict) else text_config
        self.image_size = image_size
        self.patch_size = patch_size
        self.vision_width = vision_width
        self.image_token_id = image_token_id
        super().__init__(**kwargs)


AutoConfig.register("my_model", MyModelConfig)


def map_pixels(context: Any, items: list[Image.Image]) -> dict[str, torch.Tensor]:
    """`pixel_values`: float32 from -1 to 1, of shape (items, 3, image_size, image_size)."""
    side = context.get_hf_config().image_size
    pixels = np.stack([np.asarray(item.resize((side, side), Image.Resampling.BICUBIC)) for item in items])
    return {"pixel_values": torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1}


def expand_image_tokens(context: Any, prompts: list[TokenizedPrompt]) -> list[TokenizedPrompt]:
    """A token for each feature of an image, in the place of the token that stands for the image."""
    config = context.get_hf_config()
    run = [config.image_token_id] * (config.image_size // config.patch_size) ** 2
    return [prompt.expand(config.image_token_id, [run] * len(prompt.items)) for prompt in prompts]


def largest_images(context: Any, seq_len: int, mm_counts: Mapping[str, int]) -> DummyData:
    """As many images as vLLM asks for; all sizes give equally many features."""
    config, count = context.get_hf_config(), mm_counts.get("image", 0)
    image = Image.new("RGB", (config.image_size, config.image_size))
    return DummyData([config.image_token_id] * count, [image] * count)


class VisionTower(nn.Module):
    """Features (images, patches, vision_width) of pixels (images, 3, image_size, image_size)."""

    def __init__(self, config: MyModelConfig) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, config.vision_width, config.patch_size, config.patch_size)
        self.norm = nn.LayerNorm(config.vision_width)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.norm(self.patches(pixels).flatten(2).transpose(1, 2))


class Projector(nn.Module):
    """Features in the width of the language model; tensor parallelism divides both layers."""

    def __init__(self, config: MyModelConfig) -> None:
        super().__init__()
        width = config.text_config.hidden_size
        self.linear_1 = ColumnParallelLinear(config.vision_width, width)
        self.linear_2 = RowParallelLinear(width, width)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        hidden, _ = self.linear_1(features)
        hidden, _ = self.linear_2(nn.functional.gelu(hidden))
        return hidden


@MULTIMODAL_REGISTRY.register_image_pixel_input_mapper(map_pixels)
@INPUT_REGISTRY.register_input_processor(expand_image_tokens)
@INPUT_REGISTRY.register_dummy_data(largest_images)
class MyModelForConditionalGeneration(nn.Module, SupportsMultiModal):
    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        super().__init__()
        config = vllm_config.model_config.hf_config
        with self._mark_tower_model(vllm_config, "image"):
            self.vision_tower = VisionTower(config)
            self.projector = Projector(config)
        with self._mark_language_model(vllm_config):
            self.language_model = init_vllm_registered_model(
                vllm_config=vllm_config,
                hf_config=config.text_config,
                architectures=["LlamaForCausalLM"],
                prefix=maybe_prefix(prefix, "language_model"),
            )

    @classmethod
    def get_placeholder_str(cls, modality: str, i: int) -> str | None:
        return "<image>"

    def embed_multimodal(self, **kwargs: Any) -> Any:
        pixels = kwargs["pixel_values"].to(self.vision_tower.norm.weight.dtype)
        return self.projector(self.vision_tower(pixels))

    def forward(
        self,
        input_ids: torch.Tensor | None,
        positions: torch.Tensor,
        intermediate_tensors: Any = None,
        inputs_embeds: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        return self.language_model.model(input_ids, positions, intermediate_tensors, inputs_embeds=inputs_embeds)

    def compute_logits(self, hidden_states: torch.Tensor) -> torch.Tensor | None:
        return self.language_model.compute_logits(hidden_states)

    def load_weights(self, weights: Iterable[tuple[str, torch.Tensor]]) -> set[str]:
        return AutoWeightsLoader(self).load_weights(weights)
