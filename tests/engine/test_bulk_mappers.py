"""Bulk mappers of models that vLLM ships give what vLLM's own processors give, to the last bit, or leave it to them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bulk_mapping import IMAGES, QWEN_PLACEHOLDER, ROWS, Folder, assert_equal, changed_folders, prompts, renderer
from pictures import encoded, picture

import jobs
from run_batch.model.checkpoint.settings import SettingsError
from run_batch.model.declaration import RowError
from run_batch.model.mappers import patch_model
from run_batch.model.rendering import shipped_renderer
from run_batch.model.rendering.renderer import Prompt
from run_batch.model.rendering.vllm_renderer import VllmRenderer

PATCH_FAMILIES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "glm4v")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    return changed_folders(tmp_path_factory.mktemp)


@pytest.mark.parametrize("family", PATCH_FAMILIES)
def test_a_bulk_mapper_gives_the_tensors_and_tokens_of_vllms_processor(family: str, folder: Folder) -> None:
    assert_equal(family, folder(family), ROWS)


@pytest.mark.parametrize("family", PATCH_FAMILIES)
@pytest.mark.parametrize(
    "kwargs",
    [
        {"size": {"shortest_edge": 4096, "longest_edge": 65536}},
        {"images_kwargs": {"size": {"shortest_edge": 200704, "longest_edge": 401408}}},
        {"min_pixels": 50176, "max_pixels": 100352},
    ],
)
def test_a_bulk_mapper_follows_mm_processor_kwargs(family: str, kwargs: dict[str, Any], folder: Folder) -> None:
    if family == "glm4v" and "min_pixels" in kwargs:
        pytest.skip("GLM-4V's image processor has no such key")
    assert_equal(family, folder(family), ROWS[:4], mm_processor_kwargs=kwargs)


@pytest.mark.parametrize("family", ["qwen2_5_vl", "glm4v"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_bulk_mapper_normalizes_where_the_model_does_not(family: str, dtype: str, folder: Folder) -> None:
    model = folder(family, image_mean=[0.1, 0.5, 0.9], image_std=[0.2, 0.25, 0.3], rescale_factor=1 / 127)
    assert_equal(family, model, ROWS[:6], dtype=dtype, mm_device_do_normalize=False)


@pytest.mark.parametrize("family", PATCH_FAMILIES)
@pytest.mark.parametrize(("patch", "merge", "frames"), [(16, 2, 1), (8, 3, 2), (20, 1, 3)])
def test_a_bulk_mapper_follows_the_checkpoints_patches(
    family: str, patch: int, merge: int, frames: int, folder: Folder
) -> None:
    sizes = {"patch_size": patch, "temporal_patch_size": frames}
    model = folder(family, {**sizes, "spatial_merge_size": merge}, **sizes, merge_size=merge)
    assert_equal(family, model, ROWS[:4])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"resample": 0}, "Qwen2VLImageProcessor: resample is"),
        ({"do_resize": False}, "Qwen2VLImageProcessor: do_resize is false"),
    ],
)
def test_settings_that_the_bulk_mapper_does_not_know_are_left_to_vllm(
    change: dict[str, Any], reason: str, folder: Folder
) -> None:
    rows = [[encoded(picture(1, (56, 84)))], []]
    assert reason in assert_equal("qwen2_5_vl", folder("qwen2_5_vl", **change), rows, is_bulk=False)


def test_a_model_on_another_image_processor_is_left_to_vllm(folder: Folder) -> None:
    mapping = renderer(folder("mistral3")).image_mapping
    assert mapping == "vLLM's own processor: there is no bulk mapper for PixtralImageProcessor in PixtralProcessor"


def test_a_bulk_mapper_that_fails_where_it_is_tried_is_not_used(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patch_model, "resize_to_patches", lambda *_: 1 / 0)
    found = assert_equal("qwen2_vl", folder("qwen2_vl"), ROWS[:1], is_bulk=False)
    assert "the bulk mapper fails on a test image: ZeroDivisionError" in found


def test_a_bulk_mapper_that_fails_later_stops_the_job_as_a_bug(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    mapper = renderer(folder("qwen2_vl"))
    monkeypatch.setattr(patch_model, "resize_to_patches", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        mapper.render(prompts("qwen2_vl", ROWS[:1]))


def test_a_model_that_rescales_alone_is_left_to_vllm(folder: Folder) -> None:
    model = folder("qwen2_5_vl", do_normalize=False)
    found = assert_equal("qwen2_5_vl", model, ROWS[:2], is_bulk=False, mm_device_do_normalize=False)
    assert "only one of do_rescale and do_normalize is true" in found


def test_a_mapper_that_gives_other_values_than_vllm_is_not_used(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it may be with another version of transformers, or on a machine whose torch resizes differently."""
    cut = patch_model.resize_to_patches

    def other(*arguments: Any) -> None:
        cut(*arguments)
        np.bitwise_xor(arguments[-1], 1, out=arguments[-1])

    monkeypatch.setattr(patch_model, "resize_to_patches", other)
    found = assert_equal("qwen2_vl", folder("qwen2_vl"), ROWS[:1], is_bulk=False)
    assert "gives other tensors or tokens than vLLM's processor" in found


def test_rows_that_the_bulk_mapper_does_not_take_are_told_of_as_by_vllm(folder: Folder) -> None:
    """More images than the engine takes, a shape that is refused, a damaged file, features, too few placeholders."""
    model = folder("qwen2_vl")
    features = torch.zeros(4, 64)
    rows = prompts("qwen2_vl", [IMAGES[:3], [encoded(picture(1, (2, 500)))], [b"\xff\xd8\xff"], IMAGES[:1], IMAGES[:1]])
    rows[3] = Prompt(rows[3].pieces, [features])
    rows[4] = Prompt(rows[4].pieces, rows[0].images[:2])
    limit = {"limit_mm_per_prompt": {"image": 2}}
    found = renderer(model, **limit).render(rows)
    expected = renderer(model, "vllm", **limit).render(rows)
    assert all(isinstance(row, RowError) for row in found)
    assert list(map(str, found)) == list(map(str, expected))


def test_a_row_with_very_many_pixels_is_left_to_vllm(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which refuses it before all its images are decoded."""
    monkeypatch.setattr(shipped_renderer, "_ROW_PIXELS", 80_000)
    model, rows = folder("qwen2_vl"), [[IMAGES[0]] * 2 + [IMAGES[1]], [IMAGES[3]] * 3, [IMAGES[2]]]
    loaded, by_vllm, original = renderer(model), [], VllmRenderer.render

    def counting(self: VllmRenderer, token_ids: Any, images: Any, *videos: Any) -> Any:
        by_vllm.extend(map(len, images))
        return original(self, token_ids, images, *videos)

    monkeypatch.setattr(VllmRenderer, "render", counting)
    found = loaded.render(prompts("qwen2_vl", rows))
    assert not any(isinstance(row, RowError) for row in found) and by_vllm == [3]
    assert_equal("qwen2_vl", model, rows)


def test_the_choice_of_a_mapper_is_refused_where_there_is_none(tmp_path: Path) -> None:
    from checkpoints import save_llava

    save_llava(tmp_path)
    with pytest.raises(SettingsError, match=r'model\.mapper = "vllm" does nothing: Llava.* declares its own'):
        renderer(tmp_path, "vllm", max_model_len=256)


def test_check_says_what_maps_the_images_of_a_job(tmp_path: Path, folder: Folder) -> None:
    rows = {"uid": ["a"], "image": IMAGES[:1], "prompt": ["what?"]}
    tables = {"prompt": {"template": QWEN_PLACEHOLDER + "{prompt}"}, "engine": {"max_model_len": 4096}}
    said = []
    for mapper in ("auto", "vllm"):
        model = {"path": str(folder("qwen2_vl")), "mapper": mapper}
        finished = jobs.run(jobs.write_job(tmp_path / mapper, rows, model=model, **tables), command="check")
        assert finished.returncode == 0, finished.stderr
        said += [line for line in finished.stdout.splitlines() if line.startswith("images: ")]
    assert said == [
        "images: the bulk mapper, which gives what vLLM's own processor gives",
        'images: vLLM\'s own processor: model.mapper = "vllm"',
    ]
