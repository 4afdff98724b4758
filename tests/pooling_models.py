"""Small text models with random weights for pooling: one to take embeddings of, and one that scores."""

from pathlib import Path

import torch
from checkpoints import save_tokenizer
from transformers import Qwen2Config, Qwen2ForCausalLM, Qwen2ForSequenceClassification


def save_text_model(folder: Path, labels: int = 0, seed: int = 0) -> Path:
    """Write a Qwen2; with labels, one with a head for so many classes."""
    torch.manual_seed(seed)
    folder.mkdir(parents=True)
    tokenizer = save_tokenizer(folder)
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=512,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=3,
        **({"num_labels": labels} if labels else {}),
    )
    model = (Qwen2ForSequenceClassification if labels else Qwen2ForCausalLM)(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.25)
    model.save_pretrained(folder)
    return folder
