"""Trains the demo's model and writes its data: configs/demo/model and configs/demo/digits.parquet.

Trains a small LLaVA from scratch to answer questions about handwritten digits. Seeded; takes about ten minutes on two
cores. Run it from the repository's root, in the environment of `make setup` with scikit-learn installed:

    .venv/bin/pip install scikit-learn && .venv/bin/python scripts/build_demo.py
"""

import copy
import io
import json
import math
import random
import time
from pathlib import Path

import datasets
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    AutoTokenizer,
    CLIPImageProcessor,
    CLIPVisionConfig,
    GenerationConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    PreTrainedTokenizerFast,
)

FOLDER = Path(__file__).resolve().parent.parent / "configs" / "demo"
SEED = 20
HELD_OUT = 500
STEPS = 1500
BATCH = 96
IMAGE_SIZE = 32
SPECIAL_TOKENS = ["<pad>", "<s>", "</s>", "<unk>", "<image>"]
CHARACTERS = [*map(chr, range(32, 127)), "\n"]
WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
TEMPLATE = "USER: <image>\n{prompt} ASSISTANT:"
ANSWERS = {
    "which digit is this?": lambda digit: WORDS[digit],
    "is it even?": lambda digit: "yes" if digit % 2 == 0 else "no",
    "is it above four?": lambda digit: "yes" if digit > 4 else "no",
    "which digit comes next?": lambda digit: WORDS[(digit + 1) % 10],
}


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Build a tokenizer with one token per printable ASCII character, and `<unk>` for any other character."""
    vocab = {token: i for i, token in enumerate([*SPECIAL_TOKENS, *CHARACTERS])}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", vocab["<s>"])])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        additional_special_tokens=["<image>"],
        clean_up_tokenization_spaces=False,
        model_max_length=512,
    )


def build_model(tokenizer: PreTrainedTokenizerFast) -> LlavaForConditionalGeneration:
    """Build a LLaVA with 0.65 million parameters. Heads have size 32: vLLM's CPU attention needs multiples of 32."""
    size = dict(hidden_size=96, num_attention_heads=3, num_hidden_layers=3)
    ids = dict(bos_token_id=1, eos_token_id=2, pad_token_id=0)
    return LlavaForConditionalGeneration(
        LlavaConfig(
            vision_config=CLIPVisionConfig(
                **size, intermediate_size=256, image_size=IMAGE_SIZE, patch_size=8, projection_dim=96
            ),
            text_config=LlamaConfig(
                **size,
                **ids,
                intermediate_size=256,
                num_key_value_heads=3,
                vocab_size=len(tokenizer),
                max_position_embeddings=512,
            ),
            image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        )
    )


def image_processor() -> CLIPImageProcessor:
    return CLIPImageProcessor(
        size={"shortest_edge": IMAGE_SIZE},
        crop_size={"height": IMAGE_SIZE, "width": IMAGE_SIZE},
        image_mean=[0.5, 0.5, 0.5],
        image_std=[0.5, 0.5, 0.5],
        do_convert_rgb=True,
    )


def scans() -> tuple[list[Image.Image], np.ndarray]:
    """Load all 1797 scans as gray 8x8 images, and their digits."""
    data = load_digits()
    pixels = np.clip(data.images * 255 / 16, 0, 255).round().astype(np.uint8)
    return [Image.fromarray(p) for p in pixels], data.target


def augment(pixels: torch.Tensor) -> torch.Tensor:
    """Shift, rotate, stretch and brighten a batch slightly and add noise, so that 1297 scans suffice for training.

    Args:
        pixels: normalized images, float32 (images, channels, height, width).
    """
    count = len(pixels)
    angle = (torch.rand(count) - 0.5) * 0.5
    stretch = 1 + (torch.rand(count, 2) - 0.5) * 0.3
    shear = (torch.rand(count) - 0.5) * 0.3
    affine = torch.zeros(count, 2, 3)
    affine[:, 0, 0], affine[:, 0, 1] = angle.cos() * stretch[:, 0], -angle.sin() + shear
    affine[:, 1, 0], affine[:, 1, 1] = angle.sin(), angle.cos() * stretch[:, 1]
    affine[:, :, 2] = (torch.rand(count, 2) - 0.5) * 0.3
    grid = F.affine_grid(affine, list(pixels.shape), align_corners=False)
    # Black is -1 after normalization: shift it to 0 for the sampler's zero padding.
    moved = F.grid_sample(pixels + 1, grid, align_corners=False) - 1
    bright = (moved + 1) * (1 + (torch.rand(count, 1, 1, 1) - 0.5) * 0.3) - 1
    return bright + torch.randn_like(bright) * 0.05 * torch.rand(count, 1, 1, 1)


class Batches:
    """Random image-question-answer batches for training."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, images: list[Image.Image], digits: np.ndarray) -> None:
        self._tokenizer = tokenizer
        self._pixels = image_processor()([im.convert("RGB") for im in images], return_tensors="pt")["pixel_values"]
        self._digits = digits
        self._random = random.Random(SEED)
        self._features = (IMAGE_SIZE // 8) ** 2

    def next(self) -> dict[str, torch.Tensor]:
        picks = [self._random.randrange(len(self._digits)) for _ in range(BATCH)]
        rows, starts = [], []
        for pick in picks:
            question = self._random.choice(list(ANSWERS))
            prompt = TEMPLATE.format(prompt=question).replace("<image>", "<image>" * self._features)
            ids = self._tokenizer(prompt)["input_ids"]
            answer = self._tokenizer(ANSWERS[question](int(self._digits[pick])), add_special_tokens=False)["input_ids"]
            starts.append(len(ids))
            rows.append([*ids, *answer, self._tokenizer.eos_token_id])
        length = max(map(len, rows))
        input_ids = torch.tensor([[*row, *[0] * (length - len(row))] for row in rows])
        mask = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in rows])
        labels = input_ids.masked_fill(mask == 0, -100)
        for i, start in enumerate(starts):
            labels[i, :start] = -100
        pixels = augment(self._pixels[picks])
        return dict(input_ids=input_ids, attention_mask=mask, labels=labels, pixel_values=pixels)


def train(model: LlavaForConditionalGeneration, batches: Batches) -> LlavaForConditionalGeneration:
    """Train with AdamW, warm-up and cosine decay; return a model with the running average of the weights."""
    average = copy.deepcopy(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.05, betas=(0.9, 0.98))
    warm_up = 60
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda s: min((s + 1) / warm_up, 0.5 * (1 + math.cos(math.pi * min(1, s / STEPS)))),
    )
    started = time.time()
    for step in range(STEPS):
        loss = model(**batches.next()).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            decay = min(0.995, step / (step + 10))
            for kept, new in zip(average.parameters(), model.parameters(), strict=True):
                kept.lerp_(new, 1 - decay)
        if step % 50 == 0:
            print(f"step {step:5d}  loss {loss.item():.4f}  {time.time() - started:.0f} s", flush=True)
    return average.eval()


def save(model: LlavaForConditionalGeneration, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    model.generation_config = GenerationConfig(bos_token_id=1, eos_token_id=2, pad_token_id=0)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    image_processor().save_pretrained(folder)
    processor = {
        "processor_class": "LlavaProcessor",
        "image_token": "<image>",
        "patch_size": 8,
        "vision_feature_select_strategy": "default",
        "num_additional_image_tokens": 1,
    }
    (folder / "processor_config.json").write_text(json.dumps(processor, indent=2) + "\n")


def write_rows(images: list[Image.Image], digits: np.ndarray, numbers: np.ndarray) -> None:
    """Write the held-out scans, one row per question, in the layout of Hugging Face `datasets`."""
    rows = []
    for image, digit, number in zip(images, digits, numbers, strict=True):
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        encoded = {"bytes": buffer.getvalue(), "path": f"digit-{number:04d}.png"}
        # Three of the four questions for each image, and a different three for the next image.
        for k in range(3):
            question = list(ANSWERS)[(number + k) % len(ANSWERS)]
            answer = ANSWERS[question](int(digit))
            rows.append({"id": f"digit-{number:04d}-q{k}", "image": encoded, "prompt": question, "answer": answer})
    text = datasets.Value("string")
    features = datasets.Features({"id": text, "image": datasets.Image(), "prompt": text, "answer": text})
    datasets.Dataset.from_list(rows, features=features).to_parquet(FOLDER / "digits.parquet", batch_size=256)


@torch.inference_mode()
def report_accuracy(folder: Path, images: list[Image.Image], digits: np.ndarray) -> None:
    """Print the saved model's accuracy on the held-out scans, with transformers' greedy decoding."""
    model = LlavaForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    processor = CLIPImageProcessor.from_pretrained(folder)
    pixels = processor([im.convert("RGB") for im in images], return_tensors="pt")["pixel_values"]
    right = []
    for question, answer_of in ANSWERS.items():
        prompt = TEMPLATE.format(prompt=question).replace("<image>", "<image>" * (IMAGE_SIZE // 8) ** 2)
        ids = tokenizer(prompt, return_tensors="pt")["input_ids"].expand(len(images), -1)
        out = model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), pixel_values=pixels, do_sample=False, max_new_tokens=8
        )
        texts = tokenizer.batch_decode(out[:, ids.shape[1] :], skip_special_tokens=True)
        hits = [text == answer_of(int(digit)) for text, digit in zip(texts, digits, strict=True)]
        right += hits
        print(f"{question:28s}{np.mean(hits):.1%}")
    print(f"{'overall':28s}{np.mean(right):.1%}")


def main() -> None:
    started = time.time()
    torch.manual_seed(SEED)
    images, digits = scans()
    learn, held_out = train_test_split(
        np.arange(len(digits)), test_size=HELD_OUT, random_state=SEED, stratify=digits, shuffle=True
    )
    held_out.sort()
    tokenizer = build_tokenizer()
    batches = Batches(tokenizer, [images[i] for i in learn], digits[learn])
    model = train(build_model(tokenizer), batches)
    save(model, tokenizer, FOLDER / "model")
    held_images = [images[i] for i in held_out]
    write_rows(held_images, digits[held_out], held_out)
    report_accuracy(FOLDER / "model", held_images, digits[held_out])
    print(f"{time.time() - started:.0f} s")


if __name__ == "__main__":
    main()
