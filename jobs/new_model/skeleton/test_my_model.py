"""MyModel: what its functions make of rows, and the tokens that it generates with a tiny checkpoint."""

import io
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import make_tiny
import my_model
import pyarrow.parquet as pq
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoConfig, AutoTokenizer, LlamaForCausalLM

from run_batch.jobs import run
from run_batch.model import MappedItem, TokenizedPrompt

HERE = Path(__file__).parent


def test_an_image_gets_a_token_for_each_of_its_features() -> None:
    config = my_model.MyModelConfig(image_token_id=9)
    context: Any = SimpleNamespace(get_hf_config=lambda: config)
    pixels = my_model.map_pixels(context, [make_tiny.picture(1), make_tiny.picture(2)])["pixel_values"]
    assert pixels.shape == (2, 3, 32, 32) and pixels.min() >= -1 and pixels.max() <= 1
    items = tuple(MappedItem("image", {"pixel_values": image}, "") for image in pixels)
    (prompt,) = my_model.expand_image_tokens(context, [TokenizedPrompt([1, 9, 2, 9, 3], items)])
    features = my_model.VisionTower(config)(pixels).shape[1]
    assert prompt.prompt_token_ids == [1, *[9] * features, 2, *[9] * features, 3]
    assert [place.num_features for place in prompt.placeholders] == [features, features]


@torch.inference_mode()
def expected_tokens(folder: Path, text: str, images: list[Image.Image], count: int) -> list[int]:
    """The same by the original implementation, in plain PyTorch: put yours here."""
    config, tokenizer = AutoConfig.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    weights = load_file(folder / "model.safetensors")
    tower, language_model = my_model.VisionTower(config), LlamaForCausalLM(config.text_config).eval()
    for module, prefix in ((tower, "vision_tower."), (language_model, "language_model.")):
        module.load_state_dict({n.removeprefix(prefix): t for n, t in weights.items() if n.startswith(prefix)})
    first, second = ([weights[f"projector.linear_{n}.{part}"] for part in ("weight", "bias")] for n in (1, 2))
    patches = (config.image_size // config.patch_size) ** 2
    ids = tokenizer(text.replace("<image>", "<image>" * patches), return_tensors="pt")["input_ids"]
    embeds = language_model.get_input_embeddings()(ids)
    if images:
        pixels = my_model.map_pixels(SimpleNamespace(get_hf_config=lambda: config), images)["pixel_values"]
        hidden = torch.nn.functional.gelu(torch.nn.functional.linear(tower(pixels), *first))
        embeds[ids == config.image_token_id] = torch.nn.functional.linear(hidden, *second).flatten(0, 1)
    out = language_model.generate(
        inputs_embeds=embeds, do_sample=False, max_new_tokens=count, eos_token_id=tokenizer.eos_token_id, pad_token_id=0
    )
    return out[0].tolist()


def test_it_generates_the_tokens_of_the_original(tmp_path: Path) -> None:
    for name in ("my_model.py", "job.toml"):
        shutil.copy(HERE / name, tmp_path)
    make_tiny.write_checkpoint(tmp_path / "tiny")
    make_tiny.write_rows(tmp_path / "rows.parquet")
    result = run(tmp_path / "job.toml", overrides={"output.extra": ["token_ids"]})
    assert result.exit_code == 0, result.summary
    found = pq.read_table(result.folder).to_pylist()
    rows = pq.read_table(tmp_path / "rows.parquet").to_pylist()
    for row, one in zip(rows, found, strict=True):
        images = [Image.open(io.BytesIO(image)) for image in row["image"]]
        expected = expected_tokens(tmp_path / "tiny", row["prompt"], images, one["generated_tokens"])
        assert (one["row_id"], one["token_ids"]) == (row["id"], expected)
