"""Small checkpoints with random weights of families that vLLM ships, as transformers saves them.

Each family has a function that makes its model and processor; `save_family` writes them. All have the same byte-level
tokenizer but for their special tokens, and the same chat template but for what stands for an image or a video. Their
texts are letters and digits, which differ from image to image.
"""

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import transformers
from checkpoints import rename_weights
from family_parts import CHAT_TEMPLATE, make_tokenizer, randomize, rotary_positions, text_config, vision_config

Family = tuple[Any, Any, str]


QWEN_TOKENS = ["<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
QWEN_IMAGE = "<|vision_start|><|image_pad|><|vision_end|>"
QWEN_VIDEO = "<|vision_start|><|video_pad|><|vision_end|>"


def _qwen(kind: str, text: Mapping[str, Any], vision: Mapping[str, Any], image_processor: Any) -> Family:
    tokenizer = make_tokenizer(QWEN_TOKENS)
    names = ("vision_start", "vision_end", "image", "video")
    ids = {f"{name}_token_id": tokenizer.convert_tokens_to_ids(t) for name, t in zip(names, QWEN_TOKENS, strict=True)}
    config = getattr(transformers, f"{kind}Config")(
        text_config=text_config(tokenizer, **text),
        vision_config=dict(depth=2, hidden_size=64, num_heads=2, **vision),
        **ids,
    )
    video = {"Qwen2_5_VL": "Qwen2VL"}.get(kind, kind)
    video_processor = getattr(transformers, f"{video}VideoProcessor")()
    processor = getattr(transformers, f"{kind}Processor")(image_processor, tokenizer, video_processor)
    return getattr(transformers, f"{kind}ForConditionalGeneration")(config), processor, QWEN_IMAGE


def qwen2_vl() -> Family:
    image_processor = transformers.Qwen2VLImageProcessor(min_pixels=3136, max_pixels=12845056)
    return _qwen("Qwen2VL", rotary_positions(4, 6, 6), dict(embed_dim=64, mlp_ratio=2), image_processor)


def qwen2_5_vl() -> Family:
    image_processor = transformers.Qwen2VLImageProcessor(min_pixels=3136, max_pixels=12845056)
    vision = dict(out_hidden_size=64, intermediate_size=128, fullatt_block_indexes=[1])
    return _qwen("Qwen2_5_VL", rotary_positions(4, 6, 6), vision, image_processor)


def qwen3_vl() -> Family:
    half = [0.5] * 3
    image_processor = transformers.Qwen2VLImageProcessor(
        size=dict(shortest_edge=65536, longest_edge=16777216), patch_size=16, image_mean=half, image_std=half
    )
    vision = dict(out_hidden_size=64, intermediate_size=128, num_position_embeddings=2304, deepstack_visual_indexes=[0])
    text = dict(**rotary_positions(6, 5, 5, mrope_interleaved=True), head_dim=32)
    return _qwen("Qwen3VL", text, vision, image_processor)


def internvl() -> Family:
    named = dict(start_image_token="<img>", end_image_token="</img>", context_image_token="<IMG_CONTEXT>")
    tokenizer = make_tokenizer([*named.values(), "<video>"], **named, video_token="<video>")
    config = transformers.InternVLConfig(
        text_config=dict(model_type="qwen2", **text_config(tokenizer)),
        vision_config=vision_config(0, image_size=[112, 112], patch_size=[14, 14]),
        image_token_id=tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>"),
        image_seq_length=16,
        tie_word_embeddings=False,
    )
    image_processor = transformers.GotOcr2ImageProcessor(
        size=dict(height=112, width=112), crop_to_patches=True, min_patches=1, max_patches=12
    )
    video_processor = transformers.InternVLVideoProcessor()
    processor = transformers.InternVLProcessor(image_processor, tokenizer, video_processor, image_seq_length=16)
    return transformers.InternVLForConditionalGeneration(config), processor, "<IMG_CONTEXT>\n"


def gemma3() -> Family:
    named = dict(boi_token="<start_of_image>", eoi_token="<end_of_image>", image_token="<image_soft_token>")
    tokenizer = make_tokenizer([*named.values()], plain=("\n", "\n\n", "\n\n\n", "\n\n\n\n"), bos="<bos>", **named)
    config = transformers.Gemma3Config(
        text_config=text_config(tokenizer, head_dim=32, query_pre_attn_scalar=32, sliding_window=512),
        vision_config=vision_config(112, vision_use_head=False),
        mm_tokens_per_image=16,
        boi_token_index=tokenizer.convert_tokens_to_ids("<start_of_image>"),
        eoi_token_index=tokenizer.convert_tokens_to_ids("<end_of_image>"),
        image_token_index=tokenizer.convert_tokens_to_ids("<image_soft_token>"),
    )
    image_processor = transformers.Gemma3ImageProcessor(size=dict(height=112, width=112), image_seq_length=16)
    processor = transformers.Gemma3Processor(image_processor, tokenizer, image_seq_length=16)
    return transformers.Gemma3ForConditionalGeneration(config), processor, "<start_of_image>"


def idefics3() -> Family:
    return _idefics3("Idefics3")


def smolvlm() -> Family:
    return _idefics3("SmolVLM")


def _idefics3(kind: str) -> Family:
    """Idefics3, or SmolVLM, which has classes of its own, and takes videos, too."""
    tiles = [f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)]
    tokenizer = make_tokenizer(["<end_of_utterance>", "<fake_token_around_image>", "<image>", "<global-img>", *tiles])
    config = getattr(transformers, f"{kind}Config")(
        text_config=dict(model_type="llama", **text_config(tokenizer)),
        vision_config=vision_config(128, patch_size=16),
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        scale_factor=2,
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=False,
    )
    image_processor = getattr(transformers, f"{kind}ImageProcessor")(
        size=dict(longest_edge=512), max_image_size=dict(longest_edge=128)
    )
    videos = [transformers.SmolVLMVideoProcessor()] if kind == "SmolVLM" else []
    processor = getattr(transformers, f"{kind}Processor")(image_processor, tokenizer, *videos, image_seq_len=16)
    return getattr(transformers, f"{kind}ForConditionalGeneration")(config), processor, "<image>"


def llava_onevision() -> Family:
    tokenizer = make_tokenizer(["<image>", "<video>"])
    pinpoints = [[112 * rows, 112 * columns] for rows in range(1, 4) for columns in range(1, 4)]
    settings = dict(vision_feature_select_strategy="full", vision_aspect_ratio="anyres_max_9")
    config = transformers.LlavaOnevisionConfig(
        text_config=dict(model_type="qwen2", **text_config(tokenizer)),
        vision_config=vision_config(112, model_type="siglip_vision_model", vision_use_head=False),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        video_token_index=tokenizer.convert_tokens_to_ids("<video>"),
        image_grid_pinpoints=pinpoints,
        vision_feature_layer=-1,
        tie_word_embeddings=False,
        **settings,
    )
    size = dict(height=112, width=112)
    processor = transformers.LlavaOnevisionProcessor(
        transformers.LlavaOnevisionImageProcessor(size=size, image_grid_pinpoints=pinpoints),
        tokenizer,
        transformers.LlavaOnevisionVideoProcessor(size=size),
        num_image_tokens=64,
        **settings,
    )
    return transformers.LlavaOnevisionForConditionalGeneration(config), processor, "<image>\n"


def mistral3() -> Family:
    tokenizer = make_tokenizer(["[IMG]", "[IMG_BREAK]", "[IMG_END]"], bos="<s>")
    config = transformers.Mistral3Config(
        text_config=dict(model_type="mistral", **text_config(tokenizer, head_dim=32)),
        vision_config=vision_config(448, model_type="pixtral", head_dim=32),
        image_token_index=tokenizer.convert_tokens_to_ids("[IMG]"),
        spatial_merge_size=2,
        vision_feature_layer=-1,
        tie_word_embeddings=False,
    )
    image_processor = transformers.PixtralImageProcessor(
        size=dict(longest_edge=448), patch_size=dict(height=14, width=14)
    )
    processor = transformers.PixtralProcessor(image_processor, tokenizer, patch_size=14, spatial_merge_size=2)
    return transformers.Mistral3ForConditionalGeneration(config), processor, "[IMG]"


def paligemma() -> Family:
    tokenizer = make_tokenizer(["<image>"], plain=("\n",), bos="<bos>")
    image_processor = transformers.SiglipImageProcessor(size=dict(height=112, width=112))
    image_processor.image_seq_length = 64
    processor = transformers.PaliGemmaProcessor(image_processor, tokenizer)  # which adds tokens to the tokenizer
    config = transformers.PaliGemmaConfig(
        text_config=dict(model_type="gemma", **text_config(tokenizer, head_dim=32)),
        vision_config=vision_config(112, model_type="siglip_vision_model", vision_use_head=False, projection_dim=64),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        projection_dim=64,
        hidden_size=64,
    )
    return transformers.PaliGemmaForConditionalGeneration(config), processor, ""


def glm4v() -> Family:
    tokens = [f"<|{edge}_{kind}|>" for kind in ("image", "video") for edge in ("begin_of", "end_of")]
    tokenizer = make_tokenizer([*tokens, "<|image|>", "<|video|>"])
    ids = dict(
        zip(
            ("image_start", "image_end", "video_start", "video_end", "image", "video"),
            map(tokenizer.convert_tokens_to_ids, [*tokens, "<|image|>", "<|video|>"]),
            strict=True,
        )
    )
    config = transformers.Glm4vConfig(
        text_config=text_config(tokenizer, **rotary_positions(2, 3, 3, partial_rotary_factor=0.5)),
        vision_config=dict(depth=2, hidden_size=64, num_heads=2, out_hidden_size=64, intermediate_size=128),
        **{f"{name}_token_id": token for name, token in ids.items()},
    )
    processor = transformers.Glm4vProcessor(
        transformers.Glm4vImageProcessor(), tokenizer, transformers.Glm4vVideoProcessor()
    )
    image = "<|begin_of_image|><|image|><|end_of_image|>"
    return transformers.Glm4vForConditionalGeneration(config), processor, image


FAMILIES: Mapping[str, Callable[[], Family]] = {
    family.__name__: family
    for family in (
        qwen2_vl,
        qwen2_5_vl,
        qwen3_vl,
        internvl,
        gemma3,
        idefics3,
        smolvlm,
        llava_onevision,
        mistral3,
        paligemma,
        glm4v,
    )
}


def save_family(folder: Path, name: str, seed: int = 0) -> None:
    """Write a checkpoint of a family into `folder`."""
    model, processor, image = FAMILIES[name]()
    randomize(model, processor.tokenizer, seed)
    tokenizer = processor.tokenizer
    model.generation_config = transformers.GenerationConfig(
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    model.save_pretrained(folder)
    glm = "<|begin_of_video|><|video|><|end_of_video|>"
    video = QWEN_VIDEO if name.startswith("qwen") else glm if name == "glm4v" else "<video>"
    processor.chat_template = CHAT_TEMPLATE.replace("IMAGE", image).replace("VIDEO", video)
    processor.save_pretrained(folder)
    if name in ("gemma3", "llava_onevision", "paligemma"):
        rename_weights(folder, "hub")  # vLLM 0.32 does not load what transformers 5 calls the tower


def family_folders(make_folder: Callable[[str], Path]) -> Callable[[str], Path]:
    """The checkpoint of a family, made when it is first asked for.

    Args:
        make_folder: makes an empty folder of a name, as pytest's `tmp_path_factory.mktemp` does.
    """

    @functools.cache
    def of(family: str) -> Path:
        path = make_folder(family)
        save_family(path, family)
        return path

    return of
