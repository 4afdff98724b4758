"""A small checkpoint with random weights of InternVL in its own format, as OpenGVLab's are.

transformers does not know that format: the checkpoint brings the class of its config, and vLLM has the model's own
image processor. What stands for an image in a prompt, `<image>`, is no token of the tokenizer.
"""

import json
from pathlib import Path

import torch
import transformers
from family_parts import CHAT_TEMPLATE, make_tokenizer, randomize, text_config
from safetensors.torch import save_file

CONFIG = """
from transformers import PretrainedConfig, Qwen2Config


class InternVisionConfig(PretrainedConfig):
    model_type = "intern_vit_6b"


class InternVLChatConfig(PretrainedConfig):
    model_type = "internvl_chat"
    is_composition = True

    def __init__(self, vision_config=None, llm_config=None, **fields):
        super().__init__(**fields)
        self.vision_config = InternVisionConfig(**(vision_config or {}))
        self.llm_config = Qwen2Config(**(llm_config or {}))
"""
TOKENS = ["<img>", "</img>", "<IMG_CONTEXT>"]
SIDE, PATCH, WIDTH, LAYERS = 112, 14, 64, 2


def save_internvl_chat(folder: Path, seed: int = 0) -> None:
    """Write the checkpoint into `folder`; it needs `model.trust_remote_code`."""
    folder.mkdir(parents=True, exist_ok=True)
    # As in Qwen's tokenizers, the end of `<image>` and a line end that follows are one token.
    tokenizer = make_tokenizer(TOKENS, merges=[(">", "Ċ")])
    text = transformers.Qwen2Config(**text_config(tokenizer), architectures=["Qwen2ForCausalLM"])
    vision = dict(
        hidden_size=WIDTH, intermediate_size=2 * WIDTH, num_hidden_layers=LAYERS, num_attention_heads=2, num_channels=3
    )
    vision |= dict(image_size=SIDE, patch_size=PATCH, hidden_act="gelu", layer_norm_eps=1e-6, norm_type="layer_norm")
    vision |= dict(qkv_bias=True, qk_normalization=False, initializer_factor=1.0, architectures=["InternVisionModel"])
    config = dict(
        architectures=["InternVLChatModel"],
        auto_map=dict(AutoConfig="configuration_internvl_chat.InternVLChatConfig"),
        model_type="internvl_chat",
        vision_config=vision,
        llm_config=text.to_dict(),
        downsample_ratio=0.5,
        dynamic_image_size=True,
        force_image_size=SIDE,
        min_dynamic_patch=1,
        max_dynamic_patch=12,
        ps_version="v2",
        select_layer=-1,
        use_thumbnail=True,
        template="internvl2_5",
    )
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "configuration_internvl_chat.py").write_text(CONFIG)
    tokenizer.chat_template = CHAT_TEMPLATE.replace("IMAGE", "<image>\n")
    tokenizer.save_pretrained(folder)
    model = transformers.Qwen2ForCausalLM(text)
    randomize(model, tokenizer, seed)
    weights = {f"language_model.{name}": value.clone() for name, value in model.state_dict().items()}
    save_file({**weights, **_vision_weights(seed)}, folder / "model.safetensors", {"format": "pt"})


def _vision_weights(seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.class_embedding": (1, 1, WIDTH),
        "embeddings.position_embedding": (1, (SIDE // PATCH) ** 2 + 1, WIDTH),
        "embeddings.patch_embedding.weight": (WIDTH, 3, PATCH, PATCH),
        "embeddings.patch_embedding.bias": (WIDTH,),
    }
    for layer in range(LAYERS):
        for name, shape in {
            **{f"ls{n}": (WIDTH,) for n in (1, 2)},
            **{f"norm{n}.{part}": (WIDTH,) for n in (1, 2) for part in ("weight", "bias")},
            **_linear("attn.qkv", WIDTH, 3 * WIDTH),
            **_linear("attn.proj", WIDTH, WIDTH),
            **_linear("mlp.fc1", WIDTH, 2 * WIDTH),
            **_linear("mlp.fc2", 2 * WIDTH, WIDTH),
        }.items():
            shapes[f"encoder.layers.{layer}.{name}"] = shape
    projector = {"0.weight": (4 * WIDTH,), "0.bias": (4 * WIDTH,)}
    projector |= {**_linear("1", 4 * WIDTH, WIDTH), **_linear("3", WIDTH, WIDTH)}
    named = {f"vision_model.{name}": shape for name, shape in shapes.items()}
    named |= {f"mlp1.{name}": shape for name, shape in projector.items()}
    return {name: _values(name, shape, generator) for name, shape in named.items()}


def _linear(name: str, inputs: int, outputs: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def _values(name: str, shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    is_scale = "norm" in name or ".ls" in name or name.startswith("mlp1.0")
    center = 1.0 if is_scale and not name.endswith("bias") else 0.0
    return center + (0.1 if len(shape) == 1 else 0.2) * torch.randn(shape, generator=generator)
