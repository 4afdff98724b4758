"""A vision-language model without a vision tower: it reads an image as rows of patches, in its own aspect ratio."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn
from transformers import AutoConfig, LlamaConfig, PreTrainedConfig
from vllm.config import VllmConfig
from vllm.model_executor.models.interfaces import SupportsMultiModal
from vllm.model_executor.models.utils import AutoWeightsLoader, init_vllm_registered_model, maybe_prefix

from run_batch.model import INPUT_REGISTRY, MULTIMODAL_REGISTRY, DummyData, TokenizedPrompt


class PatchReaderConfig(PreTrainedConfig):
    model_type = "patch_reader"
    sub_configs = {"text_config": LlamaConfig}  # noqa: RUF012

    def __init__(
        self,
        text_config: Any = None,
        patch_size: int = 8,
        max_patches_per_side: int = 8,
        image_token_id: int = 0,
        row_end_token_id: int = 0,
        image_end_token_id: int = 0,
        **kwargs: Any,
    ) -> None:
        self.text_config = LlamaConfig(**text_config) if isinstance(text_config, dict) else text_config
        self.patch_size = patch_size
        self.max_patches_per_side = max_patches_per_side
        self.image_token_id = image_token_id
        self.row_end_token_id = row_end_token_id
        self.image_end_token_id = image_end_token_id
        super().__init__(**kwargs)


# config.json names the model type; transformers has to know it in every process that imports this file.
AutoConfig.register("patch_reader", PatchReaderConfig)


def grid_of(config: PatchReaderConfig, width: int, height: int) -> tuple[int, int]:
    """Rows and columns of patches for an image of this size in pixels."""
    scale = min(1.0, config.max_patches_per_side * config.patch_size / max(width, height))
    rows = max(1, round(height * scale / config.patch_size))
    columns = max(1, round(width * scale / config.patch_size))
    return rows, columns


def map_patches(context: Any, items: list[Image.Image]) -> dict[str, list[torch.Tensor]]:
    """`patches`: per image (rows * columns, 3 * patch_size ** 2), float32 from 0 to 1."""
    config = context.get_hf_config()
    return {"patches": [cut_patches(item, *grid_of(config, *item.size), config.patch_size) for item in items]}


def cut_patches(image: Image.Image, rows: int, columns: int, size: int) -> torch.Tensor:
    fitted = np.asarray(image.resize((columns * size, rows * size), Image.Resampling.BICUBIC), dtype=np.float32)
    grid = torch.from_numpy(fitted / 255).view(rows, size, columns, size, 3)
    return grid.permute(0, 2, 1, 3, 4).reshape(rows * columns, -1)


def largest_images(context: Any, seq_len: int, mm_counts: Mapping[str, int]) -> DummyData:
    config = context.get_hf_config()
    side = config.max_patches_per_side * config.patch_size
    count = mm_counts.get("image", 0)
    return DummyData([config.image_token_id] * count, [Image.new("RGB", (side, side))] * count)


def lay_out_rows(context: Any, prompts: list[TokenizedPrompt]) -> list[TokenizedPrompt]:
    """Each image as rows of image tokens, every row with a token at its end, the last with another one."""
    config = context.get_hf_config()
    laid_out = []
    for prompt in prompts:
        runs = []
        for item in prompt.items:
            rows, columns = grid_of(config, item.width, item.height)
            run = ([config.image_token_id] * columns + [config.row_end_token_id]) * rows
            runs.append([*run[:-1], config.image_end_token_id])
        laid_out.append(prompt.expand(config.image_token_id, runs, embed_token_id=config.image_token_id))
    return laid_out


@MULTIMODAL_REGISTRY.register_image_pixel_input_mapper(map_patches)
@INPUT_REGISTRY.register_dummy_data(largest_images)
@INPUT_REGISTRY.register_input_processor(lay_out_rows)
class PatchReaderForImage2Seq(nn.Module, SupportsMultiModal):
    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        super().__init__()
        config = vllm_config.model_config.hf_config
        with self._mark_tower_model(vllm_config, "image"):
            self.patch_projection = nn.Linear(3 * config.patch_size**2, config.text_config.hidden_size)
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
        patches = list(kwargs["patches"])
        features = self.patch_projection(torch.cat(patches).to(self.patch_projection.weight.dtype))
        return features.split([len(image) for image in patches])

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
