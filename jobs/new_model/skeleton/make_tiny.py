"""Write a tiny checkpoint with random weights for my_model.py, and a few rows: tiny and rows.parquet."""

import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from my_model import MyModelConfig, VisionTower
from PIL import Image
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

QUESTIONS = ("what is in <image>?", "do <image> and <image> differ?", "does it rain?")


def save_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """A token for each byte, and `<image>`, which has to be one token."""
    tokens = ["</s>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    bytewise = Tokenizer(models.BPE({token: number for number, token in enumerate(tokens)}, []))
    bytewise.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bytewise.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bytewise, eos_token="</s>")
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    tokenizer.save_pretrained(folder)
    return tokenizer


def write_checkpoint(folder: Path, seed: int = 0) -> None:
    """config.json, the tokenizer and the weights, under the names that the model's modules have."""
    torch.manual_seed(seed)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = save_tokenizer(folder)
    text_config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2
    )
    config = MyModelConfig(
        text_config=text_config,
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        architectures=["MyModelForConditionalGeneration"],
    )
    config.save_pretrained(folder)
    width = text_config.hidden_size
    modules = {
        "vision_tower": VisionTower(config),
        "projector.linear_1": nn.Linear(config.vision_width, width),
        "projector.linear_2": nn.Linear(width, width),
        "language_model": LlamaForCausalLM(text_config),
    }
    weights: dict[str, torch.Tensor] = {}
    for name, module in modules.items():
        for parameter in module.parameters():
            if parameter.ndim > 1:
                nn.init.normal_(parameter, std=0.25)
        weights |= {f"{name}.{key}": tensor.contiguous() for key, tensor in module.state_dict().items()}
    save_file(weights, folder / "model.safetensors")
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": tokenizer.eos_token_id}))


def picture(seed: int) -> Image.Image:
    """Random colours, in a size of its own."""
    random = np.random.default_rng(seed)
    return Image.fromarray(random.integers(0, 256, (20 + 7 * (seed % 5), 30, 3), dtype=np.uint8))


def write_rows(file: Path, count: int = 12) -> None:
    """Rows with one image, with two and with none."""
    rows = []
    for number in range(count):
        question, images = QUESTIONS[number % len(QUESTIONS)], []
        for position in range(question.count("<image>")):
            encoded = io.BytesIO()
            picture(2 * number + position).save(encoded, "PNG")
            images.append(encoded.getvalue())
        rows.append({"id": f"row {number}", "image": images, "prompt": question})
    pq.write_table(pa.Table.from_pylist(rows), file)


if __name__ == "__main__":
    here = Path(__file__).resolve().parent
    write_checkpoint(here / "tiny")
    write_rows(here / "rows.parquet")
