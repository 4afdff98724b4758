"""LoRA adapters with random weights, made for a checkpoint's own layers, and checkpoints that they are merged into."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

# Layers of the language model: as many names as vLLM makes one layer of, and others.
TEXT_LAYERS = r"^(language_model|model)\..*(q_proj|v_proj|o_proj|up_proj|down_proj)"
ALPHA = 16


def save_adapter(
    folder: Path, base: Path, layers: str = TEXT_LAYERS, seed: int = 0, rank: int = 4, shape: float = 1.0, **config: Any
) -> Path:
    """Write an adapter, as peft does.

    Args:
        base: the checkpoint that it is for.
        layers: a regular expression for the names of its layers.
        shape: a factor on the numbers of inputs and outputs, for an adapter of another model.
        config: fields of adapter_config.json.
    """
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, weight in load_file(base / "model.safetensors").items():
        if weight.ndim == 2 and re.search(layers, name):
            outputs, inputs = (int(size * shape) for size in weight.shape)
            prefix = f"base_model.model.{name.removesuffix('.weight')}"
            tensors[f"{prefix}.lora_A.weight"] = torch.randn(rank, inputs, generator=generator) * 0.1
            tensors[f"{prefix}.lora_B.weight"] = torch.randn(outputs, rank, generator=generator) * 0.3
    assert tensors, "no layer of the checkpoint has such a name"
    folder.mkdir(parents=True)
    save_file(tensors, folder / "adapter_model.safetensors")
    fields = {"peft_type": "LORA", "r": rank, "lora_alpha": ALPHA, "target_modules": layers, "bias": "none", **config}
    (folder / "adapter_config.json").write_text(json.dumps(fields))
    return folder


def save_merged(folder: Path, base: Path, adapter: Path) -> Path:
    """Write a checkpoint with an adapter's weights added to its own."""
    shutil.copytree(base, folder)
    weights, lora = load_file(base / "model.safetensors"), load_file(adapter / "adapter_model.safetensors")
    scale = ALPHA / json.loads((adapter / "adapter_config.json").read_text())["r"]
    for name, shrink in lora.items():
        if ".lora_A." in name:
            layer = name.removeprefix("base_model.model.").replace(".lora_A.", ".")
            weights[layer] += scale * lora[name.replace(".lora_A.", ".lora_B.")] @ shrink
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return folder
