"""LLaVA-1.5 on the declared-model API, with a static number of image tokens per image.

The model has a CLIP or SigLIP tower, a two-layer projector and any language model that vLLM has, all built of vLLM's
layers, so that tensor parallelism and quantization apply. It loads llava-hf checkpoints unchanged.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from PIL import Image
from torch import nn
from transformers import CLIPVisionConfig, SiglipVisionConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from vllm.config import VllmConfig
from vllm.model_executor.layers.activation import get_act_fn
from vllm.model_executor.layers.linear import ColumnParallelLinear, RowParallelLinear
from vllm.model_executor.layers.quantization import QuantizationConfig
from vllm.model_executor.models.clip import CLIPVisionModel
from vllm.model_executor.models.interfaces import SupportsLoRA, SupportsMultiModal, SupportsPP
from vllm.model_executor.models.module_mapping import MultiModelKeys
from vllm.model_executor.models.siglip import SiglipVisionModel
from vllm.model_executor.models.utils import (
    AutoWeightsLoader,
    WeightsMapper,
    init_vllm_registered_model,
    maybe_prefix,
)
from vllm.multimodal.inputs import MultiModalKwargsItem
from vllm.multimodal.processing import InputProcessingContext
from vllm.sequence import IntermediateTensors

from run_batch.model.declaration import DeclarationError, DummyData, TokenizedPrompt
from run_batch.model.images.pixels import PixelNormalizer, PixelSettings, map_uint8_pixels
from run_batch.model.registry import INPUT_REGISTRY, MULTIMODAL_REGISTRY


def image_feature_size(config: Any) -> int:
    """Number of features, and so of placeholder tokens, of one image, which is static for LLaVA-1.5.

    It is (image_size / patch_size)^2, plus CLIP's class embedding with `vision_feature_select_strategy` "full";
    "default" drops the tower's first embedding, whatever it is (transformers' LlavaModel.get_image_features).
    """
    return tower_tokens(config) - (config.vision_feature_select_strategy == "default")


def expand_image_tokens(context: InputProcessingContext, prompts: list[TokenizedPrompt]) -> list[TokenizedPrompt]:
    """The input processor: repeats each placeholder token as often as the image has features."""
    config = context.get_hf_config()
    image_token_id, feature_size = config.image_token_index, image_feature_size(config)
    expanded = []
    for prompt in prompts:
        sizes = [precomputed_size(item.tensors) or feature_size for item in prompt.items]
        expanded.append(prompt.expand(image_token_id, [[image_token_id] * size for size in sizes]))
    return expanded


def tower_tokens(config: Any) -> int:
    """Number of tokens that pass the tower for one image, or one tile of it."""
    vision = config.vision_config
    return (vision.image_size // vision.patch_size) ** 2 + isinstance(vision, CLIPVisionConfig)


def precomputed_size(tensors: Mapping[str, torch.Tensor]) -> int | None:
    """Number of features of an image given as precomputed features; None for one given as pixels."""
    return tensors["image_features"].shape[0] if "image_features" in tensors else None


def dummy_llava_data(context: InputProcessingContext, seq_len: int, mm_counts: Mapping[str, int]) -> DummyData:
    """The dummy data: images of the tower's size, since all sizes give equally many features."""
    config = context.get_hf_config()
    size = config.vision_config.image_size
    count = mm_counts.get("image", 0)
    return DummyData([config.image_token_index] * count, [Image.new("RGB", (size, size))] * count)


# From each of the three ways in which llava-hf checkpoints name weights to this module's names:
#   hub (transformers 4.35 to 4.51)   language_model.model.*, language_model.lm_head.*, vision_tower.vision_model.*
#   transformers 5 save_pretrained    language_model.model.*, vision_tower.* (no vision_model)
#   in memory (transformers >= 4.52)  model.language_model.*, lm_head.*, model.vision_tower.*
WEIGHT_NAMES = WeightsMapper(
    orig_to_new_regex={
        re.compile(r"^model\.(?=language_model\.|vision_tower\.|multi_modal_projector\.|image_newline)"): "",
        re.compile(r"^lm_head\."): "language_model.lm_head.",
        re.compile(r"^language_model\.(?!model\.|lm_head\.)"): "language_model.model.",
        re.compile(r"^vision_tower\.(?!vision_model\.)"): "vision_tower.vision_model.",
    }
)


class LlavaProjector(nn.Module):
    """Projects features from the tower's width to the language model's, by two linear layers."""

    def __init__(self, config: Any, quant_config: QuantizationConfig | None, prefix: str) -> None:
        super().__init__()
        layers = config.vision_feature_layer
        width = config.vision_config.hidden_size * (1 if isinstance(layers, int) else len(layers))
        bias = getattr(config, "multimodal_projector_bias", True)
        hidden_size = config.text_config.hidden_size
        self.linear_1 = ColumnParallelLinear(
            width, hidden_size, bias=bias, quant_config=quant_config, prefix=f"{prefix}.linear_1"
        )
        self.act = get_act_fn(config.projector_hidden_act)
        self.linear_2 = RowParallelLinear(
            hidden_size, hidden_size, bias=bias, quant_config=quant_config, prefix=f"{prefix}.linear_2"
        )

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        hidden, _ = self.linear_1(features)
        hidden, _ = self.linear_2(self.act(hidden))
        return hidden


def build_vision_tower(config: Any, quant_config: QuantizationConfig | None, prefix: str) -> nn.Module:
    """Build the checkpoint's tower, up to the deepest layer that `vision_feature_layer` names.

    Raises:
        DeclarationError: the tower is neither CLIP nor SigLIP, or a CLIP tower whose image size is no multiple of
            the patch size, which vLLM does not support.
    """
    towers: dict[type, type[nn.Module]] = {
        CLIPVisionConfig: CLIPVisionModel,
        SiglipVisionConfig: SiglipVisionModel,
    }
    tower = towers.get(type(config.vision_config))
    if tower is None:
        raise DeclarationError(
            f"vision_config of type {config.vision_config.model_type!r}; LLaVA takes clip_vision_model or "
            "siglip_vision_model"
        )
    vision = config.vision_config
    if tower is CLIPVisionModel and vision.image_size % vision.patch_size:
        raise DeclarationError(
            f"vision_config.image_size {vision.image_size} is no multiple of patch_size {vision.patch_size}; "
            "vLLM's CLIP tower takes no such checkpoint"
        )
    layers = config.vision_feature_layer
    depth = config.vision_config.num_hidden_layers
    # hidden_states[0] are the embeddings, hidden_states[i] is the output of layer i.
    deepest = max(
        layer if layer >= 0 else depth + layer + 1 for layer in ([layers] if isinstance(layers, int) else layers)
    )
    return tower(
        config.vision_config,
        quant_config=quant_config,
        num_hidden_layers_override=deepest,
        require_post_norm=False,
        prefix=prefix,
    )


def build_language_model(vllm_config: VllmConfig, config: Any, prefix: str) -> nn.Module:
    """Build the checkpoint's language model, by model type where the text config names no architecture."""
    text_config = config.text_config
    architectures = text_config.architectures or [MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[text_config.model_type]]
    return init_vllm_registered_model(
        vllm_config=vllm_config, hf_config=text_config, architectures=architectures, prefix=prefix
    )


@MULTIMODAL_REGISTRY.register_image_feature_input_mapper()
@MULTIMODAL_REGISTRY.register_image_pixel_input_mapper(map_uint8_pixels)
@INPUT_REGISTRY.register_dummy_data(dummy_llava_data)
@INPUT_REGISTRY.register_input_processor(expand_image_tokens)
class LlavaForConditionalGeneration(nn.Module, SupportsLoRA, SupportsMultiModal, SupportsPP):
    """LLaVA-1.5; in float32, greedy decoding gives the same tokens as transformers' LlavaForConditionalGeneration."""

    packed_modules_mapping = {  # noqa: RUF012
        "qkv_proj": ["q_proj", "k_proj", "v_proj"],
        "gate_up_proj": ["gate_proj", "up_proj"],
    }
    hf_to_vllm_mapper = WEIGHT_NAMES
    supports_tower_connector_lora = True

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        super().__init__()
        config = vllm_config.model_config.hf_config
        quant_config = vllm_config.quant_config
        self.config = config
        self.configure_mm_token_handling(config.text_config.vocab_size, [config.image_token_index])
        # The pixel mapper gives uint8; the model normalizes on its device.
        self.normalize_pixels = PixelNormalizer(
            PixelSettings.from_config(vllm_config.model_config.hf_image_processor_config)
        )
        with self._mark_tower_model(vllm_config, "image"):
            self.vision_tower = build_vision_tower(config, quant_config, maybe_prefix(prefix, "vision_tower"))
            self.multi_modal_projector = LlavaProjector(
                config, quant_config, maybe_prefix(prefix, "multi_modal_projector")
            )
        with self._mark_language_model(vllm_config):
            self.language_model = build_language_model(vllm_config, config, maybe_prefix(prefix, "language_model"))
        self.make_empty_intermediate_tensors = self.language_model.make_empty_intermediate_tensors

    @classmethod
    def get_placeholder_str(cls, modality: str, i: int) -> str | None:
        return "<image>" if modality == "image" else None

    def image_features(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Features (images, features, hidden size) of pixels (images, 3, height, width), uint8 or normalized floats."""
        layers = self.config.vision_feature_layer
        features = self.vision_tower(
            self.normalize_pixels(pixel_values),
            select_layers=None if isinstance(layers, int) else list(layers),
            feature_select_strategy=self.config.vision_feature_select_strategy,
        )
        return self.multi_modal_projector(features)

    def embed_multimodal(self, **kwargs: Any) -> Any:
        """Features of a batch of images, from `pixel_values`, or precomputed ones from `image_features`."""
        if "image_features" in kwargs:
            return kwargs["image_features"]
        if "pixel_values" in kwargs:
            return self.image_features(kwargs["pixel_values"])
        return []

    def forward(
        self,
        input_ids: torch.Tensor | None,
        positions: torch.Tensor,
        intermediate_tensors: IntermediateTensors | None = None,
        inputs_embeds: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> torch.Tensor | IntermediateTensors:
        """Hidden states of shape (tokens, hidden size); `inputs_embeds` holds the image features already."""
        if intermediate_tensors is not None:
            inputs_embeds = None
        return self.language_model.model(input_ids, positions, intermediate_tensors, inputs_embeds=inputs_embeds)

    def compute_logits(self, hidden_states: torch.Tensor) -> torch.Tensor | None:
        return self.language_model.compute_logits(hidden_states)

    def get_mm_mapping(self) -> MultiModelKeys:
        """The modules of each part, by which vLLM knows where LoRA adapters apply."""
        return MultiModelKeys.from_string_field(
            language_model="language_model", connector="multi_modal_projector", tower_model="vision_tower"
        )

    @property
    def most_tiles(self) -> int:
        """Tiles of an image at most, each of which passes the tower as an image does."""
        return 1

    def get_mm_lora_token_counts(
        self, *, modality: str, mm_kwargs: MultiModalKwargsItem | None, num_mm_embeds: int
    ) -> tuple[int, int]:
        """Tokens of an image that pass the tower and the projector, by which vLLM applies adapters to these.

        Args:
            mm_kwargs: of the image; None for the largest numbers, of as many images as have `num_mm_embeds` features.
        """
        tokens, features = tower_tokens(self.config), image_feature_size(self.config)
        if mm_kwargs is None:
            tiles = self.most_tiles * max(1, num_mm_embeds // features)
        elif "pixel_values" in mm_kwargs:
            shape = mm_kwargs["pixel_values"].data.shape
            tiles = shape[0] if len(shape) == 4 else 1
        else:
            tiles = 0  # its features are there already
        return tiles * tokens, tiles * features

    def load_weights(self, weights: Iterable[tuple[str, torch.Tensor]]) -> set[str]:
        """Load a checkpoint's weights; the names of the parameters that this has loaded."""
        return AutoWeightsLoader(self).load_weights(weights, mapper=self.hf_to_vllm_mapper)
