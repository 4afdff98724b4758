"""Small checkpoints with random weights, in the layout of llava-hf, made in a second: what the tests run on."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    Blip2Config,
    Blip2ForConditionalGeneration,
    Blip2Processor,
    Blip2QFormerConfig,
    Blip2VisionConfig,
    BlipImageProcessor,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    MistralConfig,
    OPTConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    SiglipVisionConfig,
)

SPECIAL_TOKENS = ["<unk>", "<s>", "</s>", "<pad>", "<image>"]
IMAGE_TOKEN_ID = SPECIAL_TOKENS.index("<image>")
IMAGE_SIZE = 28
PREPROCESSOR = {
    "image_processor_type": "CLIPImageProcessor",
    "do_resize": True,
    "size": {"shortest_edge": IMAGE_SIZE},
    "resample": 3,
    "do_center_crop": True,
    "crop_size": {"height": IMAGE_SIZE, "width": IMAGE_SIZE},
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "do_convert_rgb": True,
}


def save_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer: one token per byte, so every text has an encoding of its own."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {token: i for i, token in enumerate([*SPECIAL_TOKENS, *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[], unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    # Bytes are shown as the alphabet's characters: a text then tells its token ids one by one.
    tokenizer.decoder = decoders.Fuse()
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", vocab["<s>"])])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        additional_special_tokens=["<image>"],
        clean_up_tokenization_spaces=False,
    )
    fast.save_pretrained(folder)
    return fast


def _randomize(model: Any, std: float) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, std)
    model.eval()
    model.tie_weights()


def save_llava(
    folder: Path, seed: int = 0, std: float = 0.25, preprocessor: dict[str, Any] = PREPROCESSOR, **config: Any
) -> Any:
    """A LLaVA with random weights, large enough in variance that its texts differ from image to image.

    Args:
        config: fields of LlavaConfig that differ from the usual; with `image_grid_pinpoints`, it is a LLaVA-NeXT.
    """
    torch.manual_seed(seed)
    tokenizer = save_tokenizer(folder)
    fields: dict[str, Any] = dict(
        vision_config=CLIPVisionConfig(
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=3,
            num_attention_heads=2,
            image_size=IMAGE_SIZE,
            patch_size=7,
            projection_dim=64,
        ),
        text_config=LlamaConfig(
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
        ),
        image_token_index=IMAGE_TOKEN_ID,
        image_token_id=IMAGE_TOKEN_ID,
    )
    is_next = config.pop("image_grid_pinpoints", None)
    settings = {**fields, **config}
    if is_next:
        preprocessor = {
            **preprocessor,
            "image_processor_type": "LlavaNextImageProcessor",
            "image_grid_pinpoints": is_next,
        }
        model = LlavaNextForConditionalGeneration(LlavaNextConfig(**settings, image_grid_pinpoints=is_next))
    else:
        model = LlavaForConditionalGeneration(LlavaConfig(**settings))
    _randomize(model, std)
    model.generation_config.eos_token_id = 2
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    return model


SIGLIP_PREPROCESSOR = {
    **PREPROCESSOR,
    "image_processor_type": "SiglipImageProcessor",
    "size": {"height": IMAGE_SIZE, "width": IMAGE_SIZE},
    "do_center_crop": False,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
}
_TEXT_SIZES: dict[str, Any] = dict(
    hidden_size=64,
    intermediate_size=128,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=1,
    max_position_embeddings=512,
    vocab_size=len(SPECIAL_TOKENS) + 256,
    bos_token_id=1,
    eos_token_id=2,
    pad_token_id=3,
)
LANGUAGE_MODELS = {
    "llama": LlamaConfig(**_TEXT_SIZES),
    "mistral": MistralConfig(**_TEXT_SIZES, sliding_window=None),
    "qwen2": Qwen2Config(**_TEXT_SIZES),
}
SIGLIP_TOWER = SiglipVisionConfig(
    hidden_size=64,
    intermediate_size=128,
    num_hidden_layers=3,
    num_attention_heads=2,
    image_size=IMAGE_SIZE,
    patch_size=7,
)


def save_blip2(folder: Path, seed: int = 0) -> Blip2ForConditionalGeneration:
    """A BLIP-2 with random weights: a model that vLLM ships, with a processor of its own."""
    torch.manual_seed(seed)
    tokenizer = save_tokenizer(folder)
    size: dict[str, Any] = dict(hidden_size=64, num_hidden_layers=2, num_attention_heads=2)
    vision = Blip2VisionConfig(**size, intermediate_size=128, image_size=IMAGE_SIZE, patch_size=7)
    qformer = Blip2QFormerConfig(**size, intermediate_size=128, encoder_hidden_size=64, cross_attention_frequency=1)
    text = OPTConfig(
        **size,
        vocab_size=len(tokenizer),
        ffn_dim=128,
        max_position_embeddings=256,
        word_embed_proj_dim=64,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=3,
    )
    config = Blip2Config(
        vision_config=vision.to_dict(),
        qformer_config=qformer.to_dict(),
        text_config=text.to_dict(),
        num_query_tokens=4,
        image_token_index=IMAGE_TOKEN_ID,
    )
    model = Blip2ForConditionalGeneration(config)
    _randomize(model, 0.25)
    model.save_pretrained(folder)
    image_processor = BlipImageProcessor(size={"height": IMAGE_SIZE, "width": IMAGE_SIZE})
    Blip2Processor(image_processor, tokenizer, num_query_tokens=4).save_pretrained(folder)
    return model


def quantize_language_model(folder: Path) -> None:
    """Rewrite a saved LLaVA's language model in 8-bit integers, as compressed-tensors (W8A8, per channel) stores it."""
    path = folder / "model.safetensors"
    weights = load_file(path)
    for name in [n for n in weights if n.startswith("language_model.model.layers.") and n.endswith("proj.weight")]:
        scale = weights[name].abs().amax(dim=1, keepdim=True) / 127
        weights[name] = (weights[name] / scale).round().to(torch.int8)
        weights[name.replace(".weight", ".weight_scale")] = scale
    save_file(weights, path, {"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    group = {
        "targets": ["Linear"],
        "weights": {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "channel"},
        "input_activations": {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "token", "dynamic": True},
    }
    config["quantization_config"] = {
        "quant_method": "compressed-tensors",
        "format": "int-quantized",
        "config_groups": {"group_0": group},
        "ignore": ["re:.*lm_head", "re:.*vision_tower.*", "re:.*multi_modal_projector.*"],
    }
    (folder / "config.json").write_text(json.dumps(config))


NAMINGS = ("transformers 5", "hub", "in memory")


def rename_weights(folder: Path, naming: str) -> None:
    """Rewrite a saved checkpoint's weight names as one of the namings that llava-hf checkpoints come in."""
    if naming == "transformers 5":
        return
    path = folder / "model.safetensors"
    save_file({_renamed(name, naming): tensor for name, tensor in load_file(path).items()}, path, {"format": "pt"})


def _renamed(name: str, naming: str) -> str:
    if naming == "hub":
        return (
            name
            if not name.startswith("vision_tower.")
            else name.replace("vision_tower.", "vision_tower.vision_model.")
        )
    if name.startswith("language_model.lm_head."):
        return name.removeprefix("language_model.")
    return "model." + name.replace("language_model.model.", "language_model.")
