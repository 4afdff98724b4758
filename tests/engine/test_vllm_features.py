"""What vLLM brings works with run-batch: tensor parallelism, quantized layers, a model with its own processor."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import quantize_language_model, save_blip2, save_llava
from engines import ENGINE as ENGINE_OF_TESTS
from engines import SAMPLING, generate, running_engine
from pictures import picture
from transformers import AutoProcessor

import jobs
from run_batch.model.checkpoint.settings import ModelSettings
from run_batch.model.images.decode import decode_image
from run_batch.model.prompts.tokenizer import Piece
from run_batch.model.rendering.renderer import Prompt, Renderer

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    folder = tmp_path_factory.mktemp("llava")
    return folder, save_llava(folder)


def test_two_ranks_generate_what_one_generates(tmp_path: Path, llava: tuple[Path, Any], monkeypatch: Any) -> None:
    columns = jobs.rows(12)
    model = {"path": str(llava[0])}
    one = jobs.succeed(jobs.write_job(tmp_path / "one", columns, model=model))
    # vLLM on CPUs wants to be told which core is whose, unless the machine has a memory node for each rank.
    monkeypatch.setitem(os.environ, "VLLM_CPU_OMP_THREADS_BIND", "0|1")
    monkeypatch.setitem(os.environ, "VLLM_ENABLE_V1_MULTIPROCESSING", "1")
    two = jobs.succeed(jobs.write_job(tmp_path / "two", columns, model=model, engine={"tensor_parallel_size": 2}))
    assert two["text"].to_pylist() == one["text"].to_pylist()


@torch.inference_mode()
def test_a_model_that_vllm_ships_goes_through_its_own_processor(tmp_path: Path) -> None:
    model = save_blip2(tmp_path / "blip2")
    processor = AutoProcessor.from_pretrained(tmp_path / "blip2")
    columns = jobs.rows(30)
    columns["image"][4] = b"no image"
    job = jobs.write_job(
        tmp_path / "job",
        columns,
        model={"path": str(tmp_path / "blip2")},
        prompt={"template": "{prompt}"},
        preprocess={"workers": 2},
    )
    table = jobs.succeed(job)
    errors = table["error"].to_pylist()
    assert errors.pop(4).startswith("image_decode: ") and errors == [None] * 29
    for row in set(range(30)) - {4}:
        image = decode_image(columns["image"][row]).to_pil()
        inputs = processor(text=columns["prompt"][row], images=image, return_tensors="pt")
        out = model.generate(**inputs, do_sample=False, max_new_tokens=8, pad_token_id=3, eos_token_id=2)
        expected = processor.tokenizer.decode(out[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        assert table["text"][row].as_py() == expected


def test_quantized_weights_reach_vllms_layers(tmp_path: Path) -> None:
    save_llava(tmp_path, std=0.1)
    quantize_language_model(tmp_path)
    model_settings = ModelSettings(str(tmp_path), engine={**ENGINE_OF_TESTS, "dtype": "bfloat16"})
    with running_engine(model_settings, SAMPLING) as engine:
        rows = [Prompt([Piece("<image>what?", trusted=True)], [picture(n)]) for n in range(8)]
        generations = generate(engine, Renderer(model_settings), rows)
        (methods,) = engine._engine.apply_model(_linear_methods)
    assert all(generation.generated_tokens > 0 for generation in generations)
    assert methods["language_model"] == {"CompressedTensorsLinearMethod"}
    assert methods["vision_tower"] == methods["multi_modal_projector"] == {"UnquantizedLinearMethod"}


def _linear_methods(model: torch.nn.Module) -> dict[str, set[str]]:
    from vllm.model_executor.layers.linear import LinearBase

    methods: dict[str, set[str]] = {}
    for name, module in model.named_modules():
        if isinstance(module, LinearBase):
            methods.setdefault(name.split(".")[0], set()).add(type(module.quant_method).__name__)
    return methods
