"""Generated tokens are those of transformers' greedy decoding in float32, for every kind of llava-hf checkpoint."""

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import NAMINGS, rename_weights, save_llava
from pictures import random_picture
from PIL import Image
from transformers import AutoTokenizer, CLIPImageProcessor

from run_batch.model.mapper import RowPrompt
from run_batch.model.prompts import Piece

pytestmark = pytest.mark.engine

QUESTIONS = ("what is this?", "how many?", "describe the picture in a few words", "is it even?")


def random_rows(count: int, seed: int) -> list[tuple[str, list[Image.Image]]]:
    rng = random.Random(seed)
    rows = []
    for _ in range(count):
        images = [random_picture(rng) for _ in range(rng.choice([1, 1, 1, 2]))]
        text = "USER: " + "<image>\n" * len(images) + rng.choice(QUESTIONS) + f" {rng.randrange(1000)} ASSISTANT:"
        rows.append((text, images))
    return rows


@torch.inference_mode()
def transformers_texts(folder: Path, model: Any, rows: list[tuple[str, list[Image.Image]]], features: int) -> list[str]:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    processor = CLIPImageProcessor.from_pretrained(folder)
    texts = []
    for text, images in rows:
        ids = tokenizer(text.replace("<image>", "<image>" * features), return_tensors="pt")
        pixels = processor(images, return_tensors="pt")["pixel_values"]
        out = model.generate(**ids, pixel_values=pixels, do_sample=False, max_new_tokens=12, pad_token_id=3)
        texts.append(tokenizer.decode(out[0, ids["input_ids"].shape[1] :], skip_special_tokens=True))
    return texts


def as_prompts(rows: list[tuple[str, list[Image.Image]]]) -> list[RowPrompt]:
    return [RowPrompt([Piece(text, trusted=True)], images) for text, images in rows]


@pytest.mark.parametrize("naming", NAMINGS)
def test_llava_generates_the_tokens_of_transformers(naming: str, tmp_path: Path, generate_with: Any) -> None:
    model = save_llava(tmp_path, seed=NAMINGS.index(naming))
    rename_weights(tmp_path, naming)
    rows = random_rows(40, seed=NAMINGS.index(naming))
    expected = transformers_texts(tmp_path, model, rows, features=16)
    found = [generation.texts[0] for generation in generate_with(tmp_path, as_prompts(rows))]
    assert found == expected
    assert len(set(found)) > len(found) // 2, "the texts hardly depend on the images"
