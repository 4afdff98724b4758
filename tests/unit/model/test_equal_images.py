"""Equal image files are mapped once by vLLM's own processors, and no row gets the image of another."""

import gc
import io
import weakref
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from built_in_families import FAMILIES, family_folders
from engines import plain_values
from pictures import encoded, picture

from run_batch.model.checkpoint.settings import ModelSettings
from run_batch.model.declaration import RowError
from run_batch.model.images import image_memory
from run_batch.model.images.row_image import EncodedImage
from run_batch.model.prompts.tokenizer import Piece
from run_batch.model.rendering import sole_tensors, vllm_processor
from run_batch.model.rendering.renderer import Prompt, Renderer

Make = Callable[[str], Renderer]
IMAGES = [encoded(picture(1, (224, 200))), encoded(picture(2, (300, 100)), "JPEG"), encoded(picture(3, (90, 90)))]
ENGINE = {"dtype": "float32", "max_model_len": 4096}
QWEN, INTERNVL, PADDING = "qwen2_5_vl", "internvl", "llava_onevision"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    return family_folders(tmp_path_factory.mktemp)


@pytest.fixture
def make(folder: Callable[[str], Path]) -> Make:
    """A renderer that has rendered no row yet."""
    return lambda family: Renderer(ModelSettings(str(folder(family)), engine=ENGINE, mapper="vllm"))


@pytest.fixture
def little_memory() -> Iterator[None]:
    """Caches that have no room for any image."""
    image_memory.use_memory(1000, 1 << 30, None)
    yield
    image_memory._memory = image_memory._ImageMemory()


def prompt(family: str, images: Sequence[bytes], text: str = "what?") -> Prompt:
    placeholder = FAMILIES[family]()[2]
    pieces = [Piece(placeholder * len(images), trusted=True), Piece(text, trusted=False)]
    return Prompt(pieces, [EncodedImage.of(image) for image in images])


def rendered(renderer: Renderer, *prompts: Prompt) -> list[Any]:
    results = renderer.render(prompts)
    assert not any(isinstance(result, RowError) for result in results), results
    return results


def hashes(row: Any) -> list[str]:
    return list(row["mm_hashes"]["image"])


def count_maps(renderer: Renderer, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of images of each call of the model's own processor."""
    renderer.render([Prompt([Piece("what?", trusted=True)])])  # learns what stands for an image, from one of its own
    processor: Any = renderer._renderer._processor  # type: ignore[attr-defined]
    original, found = processor._apply_hf_processor_main, []

    def counting(mm_items: Any, **keys: Any) -> Any:
        found.append(sum(mm_items.get_all_counts().values()))
        return original(mm_items=mm_items, **keys)

    monkeypatch.setattr(processor, "_apply_hf_processor_main", counting)
    return found


@pytest.mark.parametrize("family", [QWEN, INTERNVL])
def test_an_image_of_many_rows_is_mapped_once_and_each_row_is_as_if_it_came_alone(
    family: str, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [prompt(family, [image], f"question {n}?") for image in IMAGES[:2] for n in range(8)]
    renderer = make(family)
    mapped = count_maps(renderer, monkeypatch)
    together = rendered(renderer, *rows) + [row for again in rows[::5] for row in rendered(renderer, again)]
    assert mapped == [1, 1]
    for row, found in zip([*rows, *rows[::5]], together, strict=True):
        (alone,) = rendered(make(family), row)
        assert plain_values(found) == plain_values(alone)


def test_vllms_caches_know_an_image_by_its_file(make: Make) -> None:
    first, again, other = rendered(make(QWEN), *(prompt(QWEN, [IMAGES[n]], f"{n}?") for n in (0, 0, 1)))
    assert hashes(first) == hashes(again) == [EncodedImage.of(IMAGES[0]).digest.hex()]
    assert hashes(other) != hashes(first)


def test_images_whose_files_differ_in_one_byte_are_different_images(make: Make) -> None:
    """Of equal sizes, in pixels and in bytes."""
    image, content = picture(5, (112, 112)).convert("RGB"), io.BytesIO()
    image.save(content, "BMP")
    files = [content.getvalue()]
    for position in (60, 20_000, -1):
        changed = bytearray(files[0])
        changed[position] ^= 0x80
        files.append(bytes(changed))
    rows = [prompt(QWEN, [file]) for file in files for _ in range(2)]
    found = rendered(make(QWEN), *rows)
    assert len({hashes(row)[0] for row in found}) == len(files)
    assert len({str(plain_values(row["mm_kwargs"])) for row in found}) == len(files)
    for row, own in zip(rows, found, strict=True):
        (alone,) = rendered(make(QWEN), row)
        assert plain_values(own) == plain_values(alone)


@pytest.mark.parametrize("family", [QWEN, PADDING])
def test_a_row_of_several_images_does_not_depend_on_the_rows_before_it(
    family: str, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LLaVA-OneVision pads the images of a row to the one with the most tiles, so it maps them together."""
    alone = [prompt(family, [image]) for image in IMAGES]
    several = [prompt(family, [IMAGES[n] for n in numbers]) for numbers in ((0, 1), (2, 2), (1, 0, 2))]
    renderer = make(family)
    rendered(renderer, *several, *alone)
    mapped = count_maps(renderer, monkeypatch)
    for row in (*several, *alone):
        (fresh,) = rendered(make(family), row)
        for _ in range(2):
            (found,) = rendered(renderer, row)
            assert plain_values(found) == plain_values(fresh)
        assert hashes(fresh) == [image.digest.hex() for image in row.images]  # type: ignore[union-attr]
    assert bool(mapped) == (family == PADDING)


def test_images_that_the_cache_has_no_room_for_are_shared_by_the_rows_that_are_rendered_together(
    little_memory: None, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    renderer = make(QWEN)
    mapped = count_maps(renderer, monkeypatch)
    rows = rendered(renderer, *(prompt(QWEN, IMAGES[:1], f"{n}?") for n in range(4)))
    tensors = {row["mm_kwargs"]["image"][0]["pixel_values"].data.data_ptr() for row in rows}
    assert mapped == [1] and len(tensors) == 1
    kept = weakref.ref(rows[0]["mm_kwargs"]["image"][0]["pixel_values"].data)
    rows.clear()
    gc.collect()
    assert kept() is None, "a row's images take no memory once it is sent"
    rendered(renderer, prompt(QWEN, IMAGES[:1]))
    assert mapped == [1, 1]


def test_an_image_of_a_row_that_is_too_large_stays_too_large(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm_processor, "_ROW_PIXELS", 224 * 200 + 300 * 100 - 1)
    renderer = make(QWEN)
    both = prompt(QWEN, IMAGES[:2])
    for _ in range(2):
        (error,) = renderer.render([both])
        assert isinstance(error, RowError) and error.kind == "image_too_large"
        rendered(renderer, prompt(QWEN, IMAGES[:1]), prompt(QWEN, IMAGES[1:2]))


def test_a_damaged_image_fails_each_of_its_rows_and_no_other(make: Make) -> None:
    bad = IMAGES[0][:-3000]
    results = make(QWEN).render([prompt(QWEN, [file]) for file in (bad, IMAGES[0], bad, IMAGES[0])])
    assert [getattr(result, "kind", None) for result in results] == ["image_decode", None, "image_decode", None]


@pytest.mark.parametrize("family", [QWEN, INTERNVL])
def test_large_images_are_mapped_to_the_same_values_as_small_ones(
    family: str, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [prompt(family, [image]) for image in IMAGES]
    expected = rendered(make(family), *rows)
    for module in (vllm_processor, sole_tensors):
        monkeypatch.setattr(module, "LARGE_BYTES", 1)
    found = rendered(make(family), rows[-1], *rows)[1:]
    assert plain_values(found) == plain_values(expected)
