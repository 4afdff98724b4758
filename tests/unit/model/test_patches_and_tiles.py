"""The parts of bulk mappers equal what transformers' image processors do on torchvision, for any size of image."""

import random
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as torchvision_functional
from transformers.models.glm4v import image_processing_glm4v as glm4v
from transformers.models.got_ocr2 import image_processing_got_ocr2 as got_ocr2
from transformers.models.qwen2_vl import image_processing_qwen2_vl as qwen2_vl

from run_batch.model.declaration import RowError
from run_batch.model.images.decode import Size
from run_batch.model.mappers.glm4v import fitted_size
from run_batch.model.mappers.patch_model import PatchSettings
from run_batch.model.mappers.patches import PatchGrid, cut_patches, resize, smart_resize
from run_batch.model.mappers.plane_resize import (
    allow_plane_resize,
    resize_to_patches,
    resize_to_tiles,
    resize_to_tiles_as_pillow,
    resized_planes,
)
from run_batch.model.mappers.tiles import Tiling, cut_tiles, tiles_of


def sizes(count: int, most: int) -> Iterator[Size]:
    """Sizes of images (height, width): some small, some long and narrow."""
    rng = random.Random(count)
    for number in range(count):
        narrow = rng.randrange(1, 40)
        yield (rng.randrange(1, most), narrow if number % 3 == 0 else rng.randrange(1, most))


def noise(size: Size) -> np.ndarray:
    return np.random.default_rng(sum(size)).integers(0, 256, (*size, 3), dtype=np.uint8)


@pytest.mark.parametrize(("unit", "limits"), [(28, (3136, 12845056)), (32, (65536, 16777216)), (24, (4096, 70000))])
def test_images_get_the_sizes_that_transformers_gives_them(unit: int, limits: tuple[int, int]) -> None:
    settings = PatchSettings(PatchGrid(unit // 2, 2, 2), *limits, "bicubic", None)
    for size in sizes(3000, 6000):
        theirs = [
            _or_refused(qwen2_vl.smart_resize, *size, unit, *limits),
            _or_refused(glm4v.smart_resize, 2, *size, 2, unit, *limits),
        ]
        assert [_or_refused(smart_resize, size, unit, *limits), _or_refused(fitted_size, size, settings)] == theirs


def _or_refused(function, *arguments):  # type: ignore[no-untyped-def]
    """What a function gives, or the error that it raises for an image that is too long."""
    try:
        return function(*arguments)
    except (ValueError, RowError) as error:
        return str(error).removeprefix("image_processing: ValueError: ")


def test_images_are_resized_to_the_values_that_torchvision_gives() -> None:
    for number, size in enumerate(sizes(60, 900)):
        image, new_size = noise(size), (28 * (1 + number % 7), 28 * (1 + number % 11))
        planes = torch.from_numpy(image).permute(2, 0, 1).contiguous()[None]
        theirs = torchvision_functional.resize(planes, list(new_size), InterpolationMode.BICUBIC, antialias=True)
        assert np.array_equal(resize(image, new_size, "bicubic"), theirs[0].permute(1, 2, 0).numpy()), (size, new_size)


@pytest.fixture(scope="module")
def worker() -> Iterator[ProcessPoolExecutor]:
    """A process that resizes as the workers do: this one may start vLLM later."""
    with ProcessPoolExecutor(1, get_context("fork"), allow_plane_resize) as pool:
        yield pool


def check_planes(number: int, size: Size, filter: str) -> None:
    """Planes, tiles and patches of an image have the values that torchvision gives, for images of one color, too."""
    image = noise(size) if number % 4 else noise(size) // 128 * 255
    image.flags.writeable = number % 3 > 0
    # Some are resized in one direction alone.
    height = size[0] if number % 7 == 1 else 30 * (1 + number % 11)
    new_size = (height, size[1] if number % 5 == 1 else 42 * (1 + number % 9))
    planes = torch.from_numpy(image.transpose(2, 0, 1).copy())[None]
    mode = InterpolationMode(filter)
    theirs = torchvision_functional.resize(planes, list(new_size), mode, antialias=True)[0].numpy()
    assert np.array_equal(resized_planes(image, new_size, filter), theirs), (size, new_size, filter)
    check_patches(number, image, filter)
    if new_size[0] % 30 or new_size[1] % 42:
        return
    tiles = np.zeros((new_size[0] // 30 * (new_size[1] // 42), 3, 30, 42), np.uint8)
    resize_to_tiles(image, new_size, filter, tiles)
    cut = theirs.reshape(3, new_size[0] // 30, 30, new_size[1] // 42, 42).transpose(1, 3, 0, 2, 4)
    assert np.array_equal(tiles, cut.reshape(tiles.shape)), (size, new_size, filter)


def check_patches(number: int, image: np.ndarray, filter: str) -> None:
    """Patches are cut from what torch gives, whatever their size."""
    grid = PatchGrid((14, 16, 7, 8, 37)[number % 5], 1 + number % 3, 1)
    size = grid.unit * (1 + number % 4), grid.unit * (1 + number % 6)
    patches, theirs = np.zeros((2, size[0] * size[1] // grid.patch_size**2, 3 * grid.patch_size**2), np.uint8)
    resize_to_patches(image, size, filter, grid, patches)
    cut_patches(np.ascontiguousarray(resize(image, size, filter).transpose(2, 0, 1)), grid, theirs)
    assert np.array_equal(patches, theirs), (image.shape, size, grid)


@pytest.mark.parametrize("filter", ["bicubic", "bilinear", "lanczos"])
def test_planes_tiles_and_patches_have_the_values_that_torchvision_gives(
    filter: str, worker: ProcessPoolExecutor
) -> None:
    for number, size in enumerate([*sizes(90, 900), (2400, 1800), (1, 1), (31, 500), (33, 40_000), (40_000, 33)]):
        worker.submit(check_planes, number, size, filter).result()


def check_tiles_as_pillow(number: int, size: Size) -> None:
    """Tiles are cut from what Pillow gives, for images of one color, too, and of a size that does not change."""
    image = noise(size) if number % 2 else noise(size) // 128 * 255
    side = (28, 32, 50, 112)[number % 4]
    rows, columns = 1 + number % 3, 1 + number % 5
    if number % 7 == 0:
        image = np.ascontiguousarray(image.repeat(rows * side, 0)[: rows * side])
    resized = Image.fromarray(image).resize((columns * side, rows * side), Image.Resampling.BICUBIC)
    cut = np.asarray(resized).reshape(rows, side, columns, side, 3).transpose(0, 2, 4, 1, 3)
    tiles = np.zeros((rows * columns, 3, side, side), np.uint8)
    resize_to_tiles_as_pillow(image, (rows * side, columns * side), "bicubic", tiles)
    assert np.array_equal(tiles, cut.reshape(tiles.shape)), (image.shape, rows, columns, side)


def test_tiles_have_the_values_that_pillow_gives(worker: ProcessPoolExecutor) -> None:
    for number, size in enumerate([*sizes(90, 900), (2400, 1800), (1, 1), (31, 500), (33, 40_000), (40_000, 33)]):
        worker.submit(check_tiles_as_pillow, number, size).result()


def test_a_process_that_has_compiled_nothing_resizes_to_the_same_planes() -> None:
    for number, size in enumerate(sizes(20, 300)):
        check_planes(number, size, "bicubic")


def test_an_image_of_the_size_that_it_gets_is_not_copied() -> None:
    image = noise((28, 56))
    assert resize(image, (28, 56), "bicubic") is image


def test_an_image_that_would_become_huge_is_refused(worker: ProcessPoolExecutor) -> None:
    with pytest.raises(RowError, match="image_too_large: 5 x 3 pixels become 20000 x 10000"):
        resize(noise((3, 5)), (10_000, 20_000), "bicubic")
    refusal = worker.submit(_or_refused, resized_planes, noise((300, 500)), (10_000, 20_000), "bicubic").result()
    assert refusal.startswith("image_too_large: 500 x 300 pixels become 20000 x 10000")


@pytest.mark.parametrize("grid", [PatchGrid(14, 2, 1), PatchGrid(16, 1, 1), PatchGrid(7, 3, 1)])
def test_patches_are_in_the_order_of_transformers(grid: PatchGrid) -> None:
    image = noise((grid.unit * 3, grid.unit * 5))
    planes = torch.from_numpy(image).permute(2, 0, 1)[None]
    theirs, _, _ = qwen2_vl.Qwen2VLImageProcessor().patchify(planes, grid.patch_size, grid.merge_size, 1)
    patches = np.empty(theirs.shape[1:], np.uint8)
    cut_patches(planes[0].contiguous().numpy(), grid, patches)
    assert np.array_equal(patches, theirs[0].numpy())


@pytest.mark.parametrize(("least", "most"), [(1, 12), (1, 1), (2, 6), (1, 40)])
def test_images_get_the_tiles_that_transformers_gives_them(least: int, most: int) -> None:
    tiling = Tiling((48, 64), least, most, "bicubic")
    for size in sizes(1000, 3000):
        columns, rows = got_ocr2.get_optimal_tiled_canvas(size, tiling.size, least, most)
        assert tiles_of(size, tiling) == (rows, columns)


def test_tiles_are_in_the_order_of_transformers() -> None:
    image, tiling = noise((200, 330)), Tiling((48, 64), 1, 12, "bicubic")
    processor = got_ocr2.GotOcr2ImageProcessor()
    planes = torch.from_numpy(image).permute(2, 0, 1)[None]
    size = got_ocr2.SizeDict(height=48, width=64)
    theirs = processor.crop_image_to_patches(planes, 1, 12, patch_size=size, resample=3)[0].numpy()
    assert np.array_equal(cut_tiles(image, tiling), theirs)
