"""Bulk mappers of models of tiles give what vLLM's own processors give, and send bytes to the engine."""

import pickle
from typing import Any

import pytest
import torch
from bulk_mapping import IMAGES, ROWS, Folder, assert_equal, changed_folders, in_bytes, prompts, renderer
from pictures import encoded, picture
from vllm.multimodal.inputs import MultiModalKwargsItem
from vllm.v1.serial_utils import MsgpackDecoder, MsgpackEncoder

from run_batch.model.declaration import RowError
from run_batch.model.rendering.vllm_renderer import VllmRenderer

TILE_FAMILIES = ("internvl", "internvl_chat", "gemma3", "idefics3", "llava_onevision")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    return changed_folders(tmp_path_factory.mktemp)


@pytest.mark.parametrize("family", TILE_FAMILIES)
def test_a_bulk_mapper_gives_the_tensors_and_tokens_of_vllms_processor(family: str, folder: Folder) -> None:
    assert_equal(family, folder(family), ROWS)


def test_smolvlm_has_the_mapper_of_idefics3(folder: Folder) -> None:
    assert_equal("smolvlm", folder("smolvlm"), [*ROWS[:4], ROWS[-1]])


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


@pytest.mark.parametrize(("least_side", "most", "least_ratio"), [(64, 2, 1.2), (16, 4, 1.0), (5, 3, 2.5)])
def test_gemma3_pans_and_scans_as_vllm_does(least_side: int, most: int, least_ratio: float, folder: Folder) -> None:
    images = [encoded(picture(number, size)) for number, size in enumerate([(300, 100), (101, 290), (77, 77)])]
    kwargs = _pan_and_scan(least_side, most, least_ratio)
    assert_equal("gemma3", folder("gemma3"), [*ROWS, images, images[1:]], mm_processor_kwargs=kwargs)


def _pan_and_scan(least_side: int, most: int, least_ratio: float) -> dict[str, Any]:
    numbers = {"min_crop_size": least_side, "max_num_crops": most, "min_ratio_to_activate": least_ratio}
    return {"do_pan_and_scan": True, **{f"pan_and_scan_{name}": number for name, number in numbers.items()}}


@pytest.mark.parametrize("size", [{}, {"size": {"longest_edge": 300}, "max_image_size": {"longest_edge": 64}}])
def test_idefics3_takes_images_whole_as_vllm_does(size: dict[str, Any], folder: Folder) -> None:
    kwargs = {"do_image_splitting": False, **size}
    assert_equal("idefics3", folder("idefics3"), ROWS, dtype="bfloat16", mm_processor_kwargs=kwargs)


@pytest.mark.parametrize(
    ("family", "kwargs", "reason"),
    [
        ("gemma3", _pan_and_scan(2, 3, 1.2), "pan_and_scan_min_crop_size is 2"),
        ("idefics3", {"size": {"longest_edge": 300}}, "in tiles of 128"),
    ],
)
def test_tiles_that_a_bulk_mapper_does_not_know_are_left_to_vllm(
    family: str, kwargs: dict[str, Any], reason: str, folder: Folder
) -> None:
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


@pytest.mark.parametrize(
    ("settings", "rows"),
    [
        ({}, [[image] for image in IMAGES[:3]]),
        ({}, [IMAGES[:3], IMAGES[:1], IMAGES[3:5], IMAGES[:1]]),
        ({"do_rescale": False, "do_normalize": False}, [IMAGES[:3], IMAGES[:1]]),
    ],
)
def test_images_of_different_numbers_of_tiles_are_put_together_as_vllm_does_it(
    settings: dict[str, Any], rows: list[list[bytes]], folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Images of several rows, which the engine encodes together; vLLM pads those of a row."""
    model = folder("llava_onevision", **settings)
    together = []
    for mapper in ("vllm", "auto"):
        loaded = renderer(model, mapper)
        if mapper == "auto":
            monkeypatch.setattr(VllmRenderer, "render", lambda *_: 1 / 0)
        rendered = loaded.render(prompts("llava_onevision", rows))
        images = [item for row in rendered if not isinstance(row, RowError) for item in row["mm_kwargs"]["image"]]
        elements = [image["pixel_values"] for image in images]
        together.append([in_bytes(tiles) for tiles in elements[0].field.reduce_data(elements)])
    assert len(together[0]) == sum(map(len, rows)) and len({shape for _, shape, _ in together[0]}) > 1
    assert together[0] == together[1]


def test_onevision_without_padding_leaves_rows_of_several_images_to_vllm(folder: Folder) -> None:
    model = folder("llava_onevision", do_pad=False)
    assert_equal("llava_onevision", model, [IMAGES[:1], IMAGES[:3], IMAGES[1:2] * 2])
