"""Bulk mappers of models of tiles give what vLLM's own processors give, and send bytes to the engine."""

import pickle
from typing import Any

import pytest
import torch
from built_in_families import FAMILIES, idefics3
from bulk_mapping import IMAGES, ROWS, Folder, assert_equal, changed_folders, in_bytes, prompts, renderer
from transformers.models.smolvlm import processing_smolvlm
from vllm.multimodal.inputs import MultiModalKwargsItem
from vllm.v1.serial_utils import MsgpackDecoder, MsgpackEncoder

from run_batch.model.declaration import RowError

TILE_FAMILIES = ("internvl", "internvl_chat", "gemma3", "idefics3", "llava_onevision")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    return changed_folders(tmp_path_factory.mktemp)


@pytest.mark.parametrize("family", TILE_FAMILIES)
def test_a_bulk_mapper_gives_the_tensors_and_tokens_of_vllms_processor(family: str, folder: Folder) -> None:
    assert_equal(family, folder(family), ROWS)


def test_smolvlm_has_the_mapper_of_idefics3(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its processor wants a package that it needs for videos alone."""
    monkeypatch.setattr(processing_smolvlm, "num2words", str)
    monkeypatch.setitem(FAMILIES, "smolvlm", lambda: idefics3("SmolVLM"))
    assert_equal("smolvlm", folder("smolvlm"), ROWS[:4])


@pytest.mark.parametrize(
    "kwargs",
    [
        {"size": {"height": 56, "width": 84}},
        {"crop_to_patches": False},
        {"max_patches": 4, "min_patches": 2},
        {"images_kwargs": {"max_patches": 1}},
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_bulk_mapper_of_tiles_follows_mm_processor_kwargs(kwargs: dict[str, Any], dtype: str, folder: Folder) -> None:
    assert_equal("internvl", folder("internvl"), ROWS[:6], dtype=dtype, mm_processor_kwargs=kwargs)


@pytest.mark.parametrize(
    ("family", "kwargs"),
    [
        ("gemma3", {"size": {"height": 56, "width": 84}}),
        ("idefics3", {"size": {"longest_edge": 256}, "max_image_size": {"longest_edge": 64}}),
        ("internvl_chat", {"max_dynamic_patch": 4, "min_dynamic_patch": 2}),
        ("internvl_chat", {"dynamic_image_size": False}),
    ],
)
def test_other_families_of_tiles_follow_mm_processor_kwargs(
    family: str, kwargs: dict[str, Any], folder: Folder
) -> None:
    assert_equal(family, folder(family), ROWS[:4], dtype="bfloat16", mm_processor_kwargs=kwargs)


@pytest.mark.parametrize("resample", [1, 2])
def test_a_bulk_mapper_of_tiles_resizes_by_the_checkpoints_filter(resample: int, folder: Folder) -> None:
    assert_equal("internvl", folder("internvl", resample=resample), ROWS[:6])


@pytest.mark.parametrize(
    ("family", "kwargs", "reason"),
    [
        ("gemma3", {"do_pan_and_scan": True}, "do_pan_and_scan is true"),
        ("idefics3", {"do_image_splitting": False}, "do_pad or do_image_splitting is false"),
        ("idefics3", {"size": {"longest_edge": 300}}, "in tiles of 128"),
    ],
)
def test_tiles_that_a_bulk_mapper_does_not_know_are_left_to_vllm(
    family: str, kwargs: dict[str, Any], reason: str, folder: Folder
) -> None:
    if family == "gemma3":
        kwargs |= {
            "pan_and_scan_min_crop_size": 64,
            "pan_and_scan_max_num_crops": 2,
            "pan_and_scan_min_ratio_to_activate": 1.2,
        }
    assert reason in assert_equal(family, folder(family), [[]], is_bulk=False, mm_processor_kwargs=kwargs)


@pytest.mark.parametrize(
    ("family", "dtype", "grows"), [("qwen2_vl", "bfloat16", 2), ("internvl", "bfloat16", 2), ("internvl", "float32", 4)]
)
def test_pixels_cross_to_the_engine_as_bytes_and_become_what_the_model_takes_there(
    family: str, dtype: str, grows: int, folder: Folder
) -> None:
    """As vLLM encodes requests for an engine in a process of its own, and sends them on to the engine's workers.

    Qwen's class normalizes bytes, of two equal frames; InternVL's takes floating point values.
    """
    (row,) = renderer(folder(family), dtype=dtype).render(prompts(family, [IMAGES[2:3]]))
    assert not isinstance(row, RowError)
    (item,) = row["mm_kwargs"]["image"]
    pixels = item["pixel_values"].data
    encoded_item = MsgpackEncoder().encode(item)
    assert pixels.dtype == torch.uint8
    assert sum(memoryview(part).nbytes for part in encoded_item) < 1.1 * pixels.nbytes + 1000
    arrived = pickle.loads(pickle.dumps(MsgpackDecoder(MultiModalKwargsItem).decode(encoded_item)))
    for name, element in arrived.items():
        assert in_bytes(element.field.reduce_data([element])) == in_bytes(item[name].field.reduce_data([item[name]]))
    assert arrived["pixel_values"].field.reduce_data([arrived["pixel_values"]]).nbytes == grows * pixels.nbytes


def test_images_of_different_numbers_of_tiles_are_put_together_as_vllm_does_it(folder: Folder) -> None:
    """Images of several rows, which the engine encodes together."""
    model, rows = folder("llava_onevision"), prompts("llava_onevision", [[image] for image in IMAGES[:3]])
    together = []
    for mapper in ("auto", "vllm"):
        rendered = renderer(model, mapper).render(rows)
        elements = [row["mm_kwargs"]["image"][0]["pixel_values"] for row in rendered if not isinstance(row, RowError)]
        together.append([in_bytes(tiles) for tiles in elements[0].field.reduce_data(elements)])
    assert len(together[0]) == 3 and len({shape for _, shape, _ in together[0]}) > 1
    assert together[0] == together[1]
