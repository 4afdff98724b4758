"""What the small checkpoints of built_in_families.py are made of: tokenizer, chat template, sizes, random weights."""

import string
from collections.abc import Sequence
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

TURNS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
CHAT_TEMPLATE = """{{ bos_token if bos_token is defined and bos_token else '' }}{% for message in messages %}\
<|im_start|>{{ message['role'] }}
{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}\
{% if part['type'] == 'image' %}IMAGE{% elif part['type'] == 'video' %}VIDEO{% else %}\
{{ part['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""


def make_tokenizer(
    special: list[str],
    plain: tuple[str, ...] = (),
    bos: str | None = None,
    merges: Sequence[tuple[str, str]] = (),
    **named: Any,
) -> Any:
    """Tokenizes bytes, except for the special tokens, the `plain` ones, which a text may hold, too, and pairs."""
    tokens = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *map("".join, merges)]
    vocab = {token: i for i, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=list(merges)))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not merges)
    tokenizer.decoder = decoders.ByteLevel()
    names = [*TURNS, *([bos] if bos else []), *special]
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in names])
    tokenizer.add_tokens([AddedToken(name, special=False, normalized=False) for name in plain])
    if bos:
        added = [(bos, tokenizer.token_to_id(bos))]
        tokenizer.post_processor = processors.TemplateProcessing(single=f"{bos} $A", special_tokens=added)
        named["bos_token"] = bos
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>", extra_special_tokens=named
    )


def text_config(tokenizer: Any, **fields: Any) -> dict[str, Any]:
    return dict(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=8192,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **fields,
    )


def vision_config(side: int, **fields: Any) -> dict[str, Any]:
    size = dict(hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2)
    return {**size, "image_size": side, "patch_size": 14, **fields}


def rotary_positions(*section: int, **fields: Any) -> dict[str, Any]:
    """Rotary positions in three dimensions, which Qwen and GLM give to images."""
    return dict(rope_parameters=dict(rope_type="default", rope_theta=1e6, mrope_section=list(section), **fields))


@torch.no_grad()
def randomize(model: Any, tokenizer: Any, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    # Gemma's language models keep the scales of their norms as differences from one.
    differences = "gemma" in type(model).__name__.lower()
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1:
            is_scale = ("norm" in name or "ln_" in name) and name.endswith("weight")
            center, scale = float(is_scale and not (differences and "language" in name)), 0.1
        else:
            center, scale = 0.0, 0.2 * min(1.0, (64 / parameter[0].numel()) ** 0.5)
            scale *= 1.6 if "embed" in name or "lm_head" in name else 1.0
        parameter.copy_(center + scale * torch.randn(parameter.shape, generator=generator))
    letters = tokenizer.convert_tokens_to_ids(list(string.ascii_letters + string.digits))
    others = torch.ones(model.get_output_embeddings().weight.shape[0], dtype=torch.bool)
    others[letters] = False
    model.get_output_embeddings().weight[others] *= 0.02
