"""Write a checkpoint with random weights for patch_reader.py, to have something to run: results/patch_reader."""

import json
from pathlib import Path

import torch
from patch_reader import PatchReaderConfig
from safetensors.torch import save_file
from torch import nn
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

ROOT = Path(__file__).resolve().parent.parent.parent


def write_checkpoint(folder: Path, seed: int = 0) -> None:
    """The demo's tokenizer with two more tokens, a small Llama, and a projection of patches."""
    torch.manual_seed(seed)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = AutoTokenizer.from_pretrained(ROOT / "configs" / "demo" / "model")
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>", "<row_end>", "<image_end>"]})
    tokenizer.save_pretrained(folder)
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in ("<image>", "<row_end>", "<image_end>")}
    text_config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2
    )
    config = PatchReaderConfig(
        text_config=text_config,
        image_token_id=ids["<image>"],
        row_end_token_id=ids["<row_end>"],
        image_end_token_id=ids["<image_end>"],
        architectures=["PatchReaderForImage2Seq"],
    )
    config.save_pretrained(folder)
    projection, language_model = nn.Linear(3 * config.patch_size**2, 64), LlamaForCausalLM(text_config)
    for parameter in [*projection.parameters(), *language_model.parameters()]:
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.25)
    weights = {f"patch_projection.{name}": tensor for name, tensor in projection.state_dict().items()}
    weights |= {f"language_model.{name}": tensor for name, tensor in language_model.state_dict().items()}
    save_file({name: tensor.contiguous() for name, tensor in weights.items()}, folder / "model.safetensors")
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": tokenizer.eos_token_id}))


if __name__ == "__main__":
    write_checkpoint(ROOT / "results" / "patch_reader")
