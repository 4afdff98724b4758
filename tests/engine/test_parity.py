"""Generated tokens are those of transformers' greedy decoding in float32, for every kind of llava-hf checkpoint."""

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import LANGUAGE_MODELS, NAMINGS, SIGLIP_PREPROCESSOR, SIGLIP_TOWER, rename_weights, save_llava
from pictures import random_picture
from PIL import Image
from transformers import AutoImageProcessor, AutoTokenizer

from run_batch.model.families.llava import image_feature_size
from run_batch.model.prompts.tokenizer import Piece
from run_batch.model.rendering.renderer import Prompt

pytestmark = pytest.mark.engine

QUESTIONS = ("what is this?", "how many?", "describe the picture in a few words", "is it even?")
Row = tuple[str, list[Image.Image]]


def random_rows(count: int, seed: int) -> list[Row]:
    """Prompts with one or two images of any size and aspect ratio."""
    rng = random.Random(seed)
    rows = []
    for _ in range(count):
        images = [random_picture(rng) for _ in range(rng.choice([1, 1, 1, 2]))]
        text = "USER: " + "<image>\n" * len(images) + rng.choice(QUESTIONS) + f" {rng.randrange(1000)} ASSISTANT:"
        rows.append((text, images))
    return rows


class Oracle:
    """transformers' own model, tokenizer and image processor on a saved checkpoint."""

    def __init__(self, folder: Path, model: Any) -> None:
        self.model = model
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        # The mappers resize as Pillow does, to which torchvision is only similar.
        self.processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
        self.is_next = hasattr(model.config, "image_grid_pinpoints")

    @torch.inference_mode()
    def texts(self, rows: list[Row]) -> list[str]:
        # The steps of a small model are so short that several threads would mostly wait for each other.
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            return [self._text(*row) for row in rows]
        finally:
            torch.set_num_threads(threads)

    def _text(self, text: str, images: list[Image.Image]) -> str:
        inputs = self.processor(images, return_tensors="pt")
        parts = text.split("<image>")
        counts = self._feature_counts(inputs, len(images))
        expanded = parts[0] + "".join("<image>" * n + part for n, part in zip(counts, parts[1:], strict=True))
        ids = self.tokenizer(expanded, return_tensors="pt")
        out = self.model.generate(**ids, **inputs, do_sample=False, max_new_tokens=12, pad_token_id=3)
        return self.tokenizer.decode(out[0, ids["input_ids"].shape[1] :], skip_special_tokens=True)

    def _feature_counts(self, inputs: Any, images: int) -> list[int]:
        """As many placeholders as transformers' model itself has features."""
        if not self.is_next:
            return [image_feature_size(self.model.config)] * images
        config = self.model.config
        features = self.model.get_image_features(
            inputs["pixel_values"],
            inputs["image_sizes"],
            vision_feature_layer=config.vision_feature_layer,
            vision_feature_select_strategy=config.vision_feature_select_strategy,
        ).pooler_output
        return [len(f) for f in features]


def as_prompts(rows: list[Row]) -> list[Prompt]:
    return [Prompt([Piece(text, trusted=True)], images) for text, images in rows]


def assert_same_texts(folder: Path, model: Any, generate_with: Any, count: int, seed: int, **engine: Any) -> None:
    rows = random_rows(count, seed)
    found = [generation.texts[0] for generation in generate_with(folder, as_prompts(rows), **engine)]
    assert found == Oracle(folder, model).texts(rows)
    assert len(set(found)) > len(found) // 2, "the texts hardly depend on the images"


@pytest.mark.parametrize("naming", NAMINGS)
def test_llava_generates_the_tokens_of_transformers(naming: str, tmp_path: Path, generate_with: Any) -> None:
    model = save_llava(tmp_path, seed=NAMINGS.index(naming))
    rename_weights(tmp_path, naming)
    assert_same_texts(tmp_path, model, generate_with, 20, seed=NAMINGS.index(naming))


SIGLIP = dict(vision_config=SIGLIP_TOWER, vision_feature_select_strategy="full", preprocessor=SIGLIP_PREPROCESSOR)
PINPOINTS = [[28, 56], [56, 28], [56, 56], [84, 28], [28, 84]]
KINDS: dict[str, dict[str, Any]] = {
    "full features": dict(vision_feature_select_strategy="full"),
    "last layer": dict(vision_feature_layer=-1),
    "several layers": dict(vision_feature_layer=[-2, 1, -1]),
    "siglip, mistral": dict(**SIGLIP, text_config=LANGUAGE_MODELS["mistral"]),
    "qwen2, tied": dict(text_config=LANGUAGE_MODELS["qwen2"], tie_word_embeddings=True),
    "next": dict(image_grid_pinpoints=PINPOINTS),
    "next, mistral": dict(image_grid_pinpoints=PINPOINTS, text_config=LANGUAGE_MODELS["mistral"]),
    "next, siglip, qwen2": dict(**SIGLIP, image_grid_pinpoints=PINPOINTS, text_config=LANGUAGE_MODELS["qwen2"]),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_checkpoint_generates_the_tokens_of_transformers(
    kind: str, tmp_path: Path, generate_with: Any
) -> None:
    model = save_llava(tmp_path, seed=7, **KINDS[kind])
    assert_same_texts(tmp_path, model, generate_with, 20, seed=11, max_model_len=512)


@pytest.mark.parametrize("naming", NAMINGS[1:])
def test_llava_next_loads_every_naming_of_weights(naming: str, tmp_path: Path, generate_with: Any) -> None:
    model = save_llava(tmp_path, seed=3, image_grid_pinpoints=PINPOINTS)
    rename_weights(tmp_path, naming)
    assert_same_texts(tmp_path, model, generate_with, 20, seed=5, max_model_len=512)


@pytest.mark.parametrize("kind", [pytest.param("full features", marks=pytest.mark.long), "next"])
def test_half_precision_begins_as_full_precision_does(kind: str, tmp_path: Path, generate_with: Any) -> None:
    save_llava(tmp_path, seed=7, **KINDS[kind])
    prompts = as_prompts(random_rows(24, seed=13))
    exact, *others = (
        [g.texts[0] for g in generate_with(tmp_path, prompts, dtype=dtype, max_model_len=512)]
        for dtype in ("float32", "float16", "bfloat16")
    )
    for found in others:
        assert sum(a[:1] == b[:1] for a, b in zip(exact, found, strict=True)) >= 18
