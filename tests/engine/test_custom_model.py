"""The guide docs/custom-models.md: its code is the example's code, and the example runs and computes what it says."""

import importlib
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from pictures import picture
from safetensors.torch import load_file, save_file
from transformers import LlamaForCausalLM

import jobs
from run_batch.model.plugin import announce_plugins, register
from run_batch.model.prompts.tokenizer import Piece
from run_batch.model.rendering.renderer import Prompt

EXAMPLE = jobs.ROOT / "configs" / "custom"
GUIDE = jobs.ROOT / "docs" / "custom-models.md"


def blocks(language: str) -> list[str]:
    example = GUIDE.read_text().partition("## 6.")[0]
    return re.findall(rf"```{language}\n(.*?)```", example, re.DOTALL)


def test_the_guide_shows_the_code_of_the_example() -> None:
    code = (EXAMPLE / "patch_reader.py").read_text()
    assert "\n\n".join(block.rstrip("\n") + "\n" for block in blocks("python")) == code
    assert len(code.splitlines()) < 150
    assert blocks("toml")[0] in (EXAMPLE / "job.toml").read_text()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example's checkpoint, and the example registered in this process."""
    folder = tmp_path_factory.mktemp("patch_reader")
    announce_plugins(["patch_reader"], EXAMPLE)
    register()
    sys.path.insert(0, str(EXAMPLE))
    try:
        importlib.import_module("make_checkpoint").write_checkpoint(folder)
    finally:
        sys.path.remove(str(EXAMPLE))
    return folder


@torch.inference_mode()
def reference_text(folder: Path, text: str, image: Any) -> str:
    """The example's model in plain transformers: image features among embedded tokens, greedy decoding."""
    from transformers import AutoConfig, AutoTokenizer

    example = importlib.import_module("patch_reader")
    config, tokenizer, weights = (
        AutoConfig.from_pretrained(folder),
        AutoTokenizer.from_pretrained(folder),
        load_file(folder / "model.safetensors"),
    )
    model = LlamaForCausalLM(config.text_config).eval()
    prefix = "language_model."
    model.load_state_dict({n.removeprefix(prefix): t for n, t in weights.items() if n.startswith(prefix)})
    rows, columns = example.grid_of(config, *image.size)
    patches = example.cut_patches(image, rows, columns, config.patch_size)
    features = patches @ weights["patch_projection.weight"].T + weights["patch_projection.bias"]
    layout = "<row_end>".join(["<image>" * columns] * rows) + "<image_end>"
    ids = tokenizer(text.replace("<image>", layout), return_tensors="pt")["input_ids"]
    embeds = model.get_input_embeddings()(ids)
    embeds[ids == config.image_token_id] = features
    out = model.generate(inputs_embeds=embeds, do_sample=False, max_new_tokens=12, pad_token_id=0, eos_token_id=2)
    return tokenizer.decode(out[0], skip_special_tokens=True)


@pytest.mark.engine
def test_the_example_generates_what_its_description_says(checkpoint: Path, generate_with: Any) -> None:
    images = [picture(seed, size) for seed, size in enumerate([(64, 64), (200, 30), (30, 200), (8, 8), (90, 61)] * 4)]
    texts = [f"<image>what is number {n}?" for n in range(len(images))]
    rows = [Prompt([Piece(text, trusted=True)], [image]) for text, image in zip(texts, images, strict=True)]
    found = [generation.texts[0] for generation in generate_with(checkpoint, rows)]
    assert found == [reference_text(checkpoint, text, image) for text, image in zip(texts, images, strict=True)]
    assert len(set(found)) > len(found) // 2


@pytest.mark.engine
def test_the_job_of_the_guide_runs(checkpoint: Path, tmp_path: Path) -> None:
    settings = [f"model.path={checkpoint}", f"output.path={tmp_path / 'out'}", "preprocess.workers=2"]
    words = [word for setting in settings for word in ("--set", setting)]
    finished = jobs.run(EXAMPLE / "job.toml", *words, forked=False)
    assert finished.returncode == 0, finished.stderr
    table = jobs.results(tmp_path / "job.toml")
    assert table.num_rows == 100 and table["error"].null_count == 100


@pytest.mark.engine
@pytest.mark.parametrize(
    "missing",
    [
        "patch_projection.weight",
        pytest.param("language_model.model.layers.1.self_attn.k_proj.weight", marks=pytest.mark.long),
    ],
)
def test_a_model_written_as_the_guide_says_is_refused_where_its_checkpoint_lacks_weights(
    missing: str, checkpoint: Path, tmp_path: Path
) -> None:
    """With a linear layer of vLLM's, which has no values of its own; and with a part of a fused layer."""
    # Not in forks of this process, which has the example itself imported.
    code = (EXAMPLE / "patch_reader.py").read_text()
    for mine, of_vllm in (
        ("nn.Linear(3 *", "ReplicatedLinear(3 *"),
        ("features = self.patch_projection(torch.cat(", "features, _ = self.patch_projection(torch.cat("),
        (
            "from vllm.config import",
            "from vllm.model_executor.layers.linear import ReplicatedLinear\nfrom vllm.config import",
        ),
    ):
        assert mine in code
        code = code.replace(mine, of_vllm)
    (tmp_path / "patch_reader.py").write_text(code)
    (tmp_path / "job.toml").write_text((EXAMPLE / "job.toml").read_text())
    shutil.copytree(checkpoint, tmp_path / "model")
    settings = [f"input.path={jobs.ROOT / 'configs' / 'demo' / 'digits.parquet'}", "input.limit=3"]
    settings += [f"model.path={tmp_path / 'model'}", f"output.path={tmp_path / 'out'}", "preprocess.workers=1"]
    words = [word for setting in settings for word in ("--set", setting)]
    if missing == "patch_projection.weight":
        assert jobs.run(tmp_path / "job.toml", *words, forked=False).returncode == 0

    weights = load_file(checkpoint / "model.safetensors")
    del weights[missing]
    save_file(weights, tmp_path / "model" / "model.safetensors")
    words += ["--set", f"output.path={tmp_path / 'none'}", "--quiet"]
    finished = jobs.run(tmp_path / "job.toml", *words, forked=False)
    assert finished.returncode == 2, finished.stderr
    assert finished.stderr.startswith("run-batch: PatchReaderForImage2Seq: the checkpoint lacks weights")
    assert finished.stderr.endswith(f": {missing.replace('k_proj', 'qkv_proj')}\n")
    assert not (tmp_path / "none").exists()
