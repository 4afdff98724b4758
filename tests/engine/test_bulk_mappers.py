"""Bulk mappers of models that vLLM ships give what vLLM's own processors give, to the last bit, or leave it to them."""

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from built_in_families import family_folders
from engines import plain_values
from pictures import encoded, picture
from PIL import Image
from vllm.multimodal.inputs import MultiModalKwargsItem
from vllm.v1.serial_utils import MsgpackDecoder, MsgpackEncoder

import jobs
from run_batch.model.checkpoint.settings import ModelSettings, SettingsError
from run_batch.model.declaration import RowError
from run_batch.model.images.row_image import EncodedImage
from run_batch.model.mappers import patch_model
from run_batch.model.prompts.tokenizer import Piece
from run_batch.model.rendering import shipped_renderer
from run_batch.model.rendering.renderer import Prompt, Renderer
from run_batch.model.rendering.vllm_renderer import VllmRenderer

PATCH_FAMILIES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "glm4v")
BULK_FAMILIES = (*PATCH_FAMILIES, "internvl")
PLACEHOLDERS = {"glm4v": "<|begin_of_image|><|image|><|end_of_image|>", "internvl": "<IMG_CONTEXT>\n"}
QWEN_PLACEHOLDER = "<|vision_start|><|image_pad|><|vision_end|>"

transparent = picture(5, (90, 130)).convert("RGBA")
transparent.putalpha(picture(6, (90, 130)).convert("L"))
rotated = Image.Exif()
rotated[0x0112] = 6
IMAGES = [
    encoded(picture(1, (20, 20))),
    encoded(picture(2, (400, 40))),
    encoded(picture(3, (1200, 900)), "JPEG"),
    encoded(picture(4, (150, 200)).convert("L")),
    encoded(transparent),
    encoded(picture(7, (64, 300)).quantize(16)),
    encoded(picture(8, (120, 77)), "JPEG", exif=rotated),
    encoded(picture(9, (112, 140))),
    encoded(picture(10, (1, 1))),
    encoded(picture(11, (3, 500))),
]
ROWS = [*([image] for image in IMAGES), [], IMAGES[1:4], [IMAGES[0], IMAGES[0]]]

Folder = Callable[..., Path]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """The checkpoint of a family, made when it is first asked for; with changes, a copy of it."""
    of = family_folders(tmp_path_factory.mktemp)

    def changed(family: str, vision: dict[str, Any] | None = None, **image_processor: Any) -> Path:
        if not vision and not image_processor:
            return of(family)
        path = tmp_path_factory.mktemp("changed") / family
        shutil.copytree(of(family), path)
        _edit(path / "processor_config.json", "image_processor", image_processor)
        _edit(path / "config.json", "vision_config", vision or {})
        return path

    return changed


def _edit(file: Path, table: str, changes: dict[str, Any]) -> None:
    config = json.loads(file.read_text())
    config[table].update(changes)
    file.write_text(json.dumps(config))


def renderer(model: Path, mapper: str = "auto", **engine: Any) -> Renderer:
    return Renderer(
        ModelSettings(str(model), engine={"dtype": "float32", "max_model_len": 8192, **engine}, mapper=mapper)
    )


def prompts(family: str, rows: Sequence[list[bytes]]) -> list[Prompt]:
    image = PLACEHOLDERS.get(family, QWEN_PLACEHOLDER)
    return [
        Prompt(
            [
                Piece("Look: " + image * len(images), trusted=True),
                Piece(f"what is <|image_pad|> {row}?", trusted=False),
            ],
            [EncodedImage.of(image) for image in images],
        )
        for row, images in enumerate(rows)
    ]


def assert_equal(family: str, model: Path, rows: Sequence[list[bytes]], is_bulk: bool = True, **engine: Any) -> str:
    """Compare the bulk mapper's engine inputs with those of vLLM's processor; how the model's images are mapped."""
    auto, by_vllm = renderer(model, **engine), renderer(model, "vllm", **engine)
    assert str(auto.image_mapping).startswith("the bulk mapper") == is_bulk, auto.image_mapping
    assert str(by_vllm.image_mapping) == 'vLLM\'s own processor: model.mapper = "vllm"'
    for ours, theirs in zip(auto.render(prompts(family, rows)), by_vllm.render(prompts(family, rows)), strict=True):
        if isinstance(theirs, RowError):
            assert str(ours) == str(theirs)
            continue
        assert not isinstance(ours, RowError), ours
        for key in ("type", "prompt_token_ids", "mm_placeholders"):
            assert plain_values(ours.get(key)) == plain_values(theirs.get(key)), key
        assert tensors(ours) == tensors(theirs)
    return str(auto.image_mapping)


def tensors(engine_input: Any) -> list[dict[str, Any]]:
    """What the model gets of a row, of each image alone and of all together, and which tensors it gets on the CPU."""
    items = list((engine_input.get("mm_kwargs") or {}).get("image", ()))
    batches = [*([item] for item in items), *([items] if items else [])]
    return [
        {
            name: (element.field.keep_on_cpu, in_bytes(element.field.reduce_data([item[name] for item in batch])))
            for name, element in batch[0].items()
        }
        for batch in batches
    ]


def in_bytes(tensor: torch.Tensor) -> tuple[torch.dtype, tuple[int, ...], bytes]:
    return tensor.dtype, tuple(tensor.shape), tensor.reshape(-1).view(torch.uint8).numpy().tobytes()


@pytest.mark.parametrize("family", BULK_FAMILIES)
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
    ("change", "reason"),
    [
        ({"resample": 2}, "Qwen2VLImageProcessor: resample is"),
        ({"do_resize": False}, "Qwen2VLImageProcessor: do_resize is false"),
    ],
)
def test_settings_that_the_bulk_mapper_does_not_know_are_left_to_vllm(
    change: dict[str, Any], reason: str, folder: Folder
) -> None:
    rows = [[encoded(picture(1, (56, 84)))], []]
    assert reason in assert_equal("qwen2_5_vl", folder("qwen2_5_vl", **change), rows, is_bulk=False)


def test_a_model_on_another_image_processor_is_left_to_vllm(folder: Folder) -> None:
    mapping = renderer(folder("gemma3")).image_mapping
    assert mapping == "vLLM's own processor: there is no bulk mapper for Gemma3ImageProcessor in Gemma3Processor"


def test_a_bulk_mapper_that_fails_where_it_is_tried_is_not_used(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patch_model, "cut_patches", lambda image, grid: 1 / 0)
    found = assert_equal("qwen2_vl", folder("qwen2_vl"), ROWS[:1], is_bulk=False)
    assert "the bulk mapper fails on a test image: ZeroDivisionError" in found


def test_a_bulk_mapper_that_fails_later_stops_the_job_as_a_bug(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    mapper = renderer(folder("qwen2_vl"))
    monkeypatch.setattr(patch_model, "cut_patches", lambda image, grid: 1 / 0)
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
    other = lambda image, grid: torch.bitwise_xor(cut(image, grid), 1)  # noqa: E731
    cut = patch_model.cut_patches
    monkeypatch.setattr(patch_model, "cut_patches", other)
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

    def counting(self: VllmRenderer, token_ids: Any, images: Any) -> Any:
        by_vllm.extend(map(len, images))
        return original(self, token_ids, images)

    monkeypatch.setattr(VllmRenderer, "render", counting)
    found = loaded.render(prompts("qwen2_vl", rows))
    assert not any(isinstance(row, RowError) for row in found) and by_vllm == [3]
    assert_equal("qwen2_vl", model, rows)


def test_the_choice_of_a_mapper_is_refused_where_there_is_none(tmp_path: Path) -> None:
    from checkpoints import save_llava

    save_llava(tmp_path)
    with pytest.raises(SettingsError, match=r'model\.mapper = "vllm" does nothing: Llava.* declares its own'):
        renderer(tmp_path, "vllm", max_model_len=256)


def test_frames_that_are_sent_once_arrive_in_the_engines_process(folder: Folder) -> None:
    """As vLLM encodes requests for an engine in a process of its own."""
    (row,) = renderer(folder("qwen2_vl")).render(prompts("qwen2_vl", [IMAGES[:1]]))
    assert not isinstance(row, RowError)
    (item,) = row["mm_kwargs"]["image"]
    frame = item["pixel_values"].data
    encoded_item = MsgpackEncoder().encode(item)
    assert sum(memoryview(part).nbytes for part in encoded_item) < 1.1 * frame.nbytes + 1000
    arrived = MsgpackDecoder(MultiModalKwargsItem).decode(encoded_item)
    for name, element in arrived.items():
        assert in_bytes(element.field.reduce_data([element])) == in_bytes(item[name].field.reduce_data([item[name]]))
    assert arrived["pixel_values"].field.reduce_data([arrived["pixel_values"]]).nbytes == 2 * frame.nbytes


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
