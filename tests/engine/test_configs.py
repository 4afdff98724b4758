"""The configs for real checkpoints, as far as they can be checked without weights."""

import json
from pathlib import Path
from typing import Any

import pytest
from checkpoints import IMAGE_TOKEN_ID, PREPROCESSOR, save_tokenizer
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaNextConfig, MistralConfig

import jobs
from run_batch.jobs.job.config import load_config
from run_batch.model.checkpoint.settings import build_engine_args, build_sampling_params

pytestmark = pytest.mark.engine

CONFIGS = sorted((jobs.ROOT / "configs").glob("*.toml"))
TOWER = CLIPVisionConfig(
    hidden_size=1024,
    intermediate_size=4096,
    num_hidden_layers=24,
    num_attention_heads=16,
    image_size=336,
    patch_size=14,
)
LARGE: dict[str, Any] = dict(vocab_size=32064, max_position_embeddings=32768)
CHECKPOINTS: dict[str, tuple[Any, dict[str, Any], str]] = {
    "llava-1.5-7b": (
        LlavaConfig(text_config=LlamaConfig(**LARGE), vision_config=TOWER, image_token_index=IMAGE_TOKEN_ID),
        {"size": {"shortest_edge": 336}, "crop_size": {"height": 336, "width": 336}},
        "LlavaForConditionalGeneration",
    ),
    "llava-v1.6-mistral-7b": (
        LlavaNextConfig(text_config=MistralConfig(**LARGE), vision_config=TOWER, image_token_index=IMAGE_TOKEN_ID),
        {"size": {"shortest_edge": 336}, "crop_size": {"height": 336, "width": 336}},
        "LlavaNextForConditionalGeneration",
    ),
}


@pytest.mark.parametrize("path", CONFIGS, ids=[path.stem for path in CONFIGS])
def test_every_shipped_config_holds_against_this_vllm(path: Path) -> None:
    config = load_config(path)
    build_engine_args(config.model_settings)
    build_sampling_params(config.sampling)


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_configs_for_real_checkpoints_pass_the_check_without_weights(name: str, tmp_path: Path) -> None:
    """A folder with the real model's config, and no weights, in the place of the Hub's."""
    config, preprocessor, architecture = CHECKPOINTS[name]
    config.architectures = [architecture]
    model = tmp_path / "model"
    save_tokenizer(model)
    config.save_pretrained(model)
    (model / "preprocessor_config.json").write_text(json.dumps({**PREPROCESSOR, **preprocessor}))
    jobs.write_job(tmp_path, {"image": jobs.rows(4)["image"], "prompt": ["what?"] * 4})
    settings = [f"model.path={model}", f"input.path={tmp_path / 'rows.parquet'}", f"output.path={tmp_path / 'out'}"]
    words = [word for setting in settings for word in ("--set", setting)]
    finished = jobs.run(jobs.ROOT / "configs" / f"{name}.toml", *words, command="check")
    assert finished.returncode == 0, finished.stderr
    assert "first 4 rows: 4 can be mapped, 0 fail" in finished.stdout
    least = int(finished.stdout.split("image tokens: ")[1].split()[0])
    assert least > 576
