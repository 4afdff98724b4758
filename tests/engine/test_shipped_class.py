"""A plugin that declares the inputs of a model class that vLLM ships: a mapper of its own, and no other code."""

from pathlib import Path

import pytest
from built_in_families import QWEN_IMAGE, save_family
from pictures import encoded, picture

import jobs

PLUGIN = """
import numpy as np
import torch
from PIL import Image
from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize
from vllm.model_executor.models.qwen2_5_vl import Qwen2_5_VLForConditionalGeneration

from run_batch.model import INPUT_REGISTRY, MULTIMODAL_REGISTRY, DummyData, array_mapper, image_settings


@array_mapper
def patches(context, items):
    settings = image_settings(context)
    assert not settings["do_normalize"], "the class normalizes"
    size, merged, frames = settings["patch_size"], settings["merge_size"], settings["temporal_patch_size"]
    tensors = {"pixel_values": [], "image_grid_thw": []}
    for item in items:
        height, width = smart_resize(
            *item.shape[:2], size * merged, settings["size"]["shortest_edge"], settings["size"]["longest_edge"]
        )
        image = torch.from_numpy(np.ascontiguousarray(item)).permute(2, 0, 1)[None]
        image = torch.nn.functional.interpolate(image, (height, width), mode="bicubic", antialias=True)
        rows, columns = height // size, width // size
        cut = image.reshape(3, rows // merged, merged, size, columns // merged, merged, size)
        cut = cut.permute(1, 4, 2, 5, 0, 3, 6)[:, :, :, :, :, None].expand(-1, -1, -1, -1, -1, frames, -1, -1)
        tensors["pixel_values"].append(cut.reshape(rows * columns, -1))
        tensors["image_grid_thw"].append(torch.tensor([1, rows, columns]))
    return tensors


def expand(context, prompts):
    token = context.get_hf_config().image_token_id
    return [p.expand(token, [[token] * (len(item.tensors["pixel_values"]) // 4) for item in p.items]) for p in prompts]


def dummy(context, seq_len, mm_counts):
    images = [Image.new("RGB", (280, 280))] * mm_counts.get("image", 0)
    return DummyData([context.get_hf_config().image_token_id] * len(images), images)


@MULTIMODAL_REGISTRY.register_image_pixel_input_mapper(patches, flat=["pixel_values"], on_cpu=["image_grid_thw"])
@INPUT_REGISTRY.register_input_processor(expand)
@INPUT_REGISTRY.register_dummy_data(dummy)
class PluginsQwen(Qwen2_5_VLForConditionalGeneration):
    pass
"""
ENGINE = {
    "max_model_len": 4096,
    "max_num_seqs": 8,
    "mm_processor_kwargs": {"size": {"shortest_edge": 3136, "longest_edge": 78400}},
}


@pytest.mark.engine
def test_a_class_that_vllm_ships_takes_the_tensors_of_a_plugins_mapper(tmp_path: Path) -> None:
    """Images of several sizes in one batch, which vLLM concatenates, and sizes that the class reads on the CPU."""
    save_family(tmp_path / "model", "qwen2_5_vl")
    (tmp_path / "plugin_qwen.py").write_text(PLUGIN)
    images = [[encoded(picture(seed, (60 + 40 * seed, 300 - 50 * seed)))] for seed in range(5)]
    images.append([image for (image,) in images[:2]])
    rows = {
        "uid": [f"u{number}" for number in range(len(images))],
        "image": images,
        "prompt": [QWEN_IMAGE * len(its) + " what is it?" for its in images],
    }
    model = {"path": str(tmp_path / "model")}
    tables = {"prompt": {"template": "{prompt}"}, "engine": ENGINE}
    tables["prompt"]["image_marker"] = QWEN_IMAGE
    plugin = {**model, "plugins": ["plugin_qwen"], "architecture": "PluginsQwen"}
    jobs.write_job(tmp_path / "shipped", rows, model=model, **tables)
    job = jobs.write_job(tmp_path, rows, model=plugin, **tables)
    found = jobs.succeed(job)
    assert found["error"].null_count == len(images), found["error"]
    expected = jobs.succeed(tmp_path / "shipped" / "job.toml")
    assert found["prompt_tokens"] == expected["prompt_tokens"]
    assert found["text"] == expected["text"]
    assert len(set(found["text"].to_pylist())) > len(images) // 2, "the texts hardly depend on the images"
