"""Decoding, and the default pixel mapper against transformers."""

import io
import json
import random
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import PREPROCESSOR
from pictures import encoded, picture
from PIL import EpsImagePlugin, ExifTags, Image, ImageOps
from transformers import AutoImageProcessor

from run_batch.model.declaration import RowError
from run_batch.model.images import decode as images
from run_batch.model.images.decode import decode_image
from run_batch.model.images.pixels import PixelSettings, map_image_pixels, resize_and_crop
from run_batch.model.images.resize import Window, compile_resize, resize
from run_batch.model.images.rgb import rgb_pixels

SIZES = [(160, 120), (30, 200), (8, 8), (1, 1), (299, 150), (28, 28), (3, 500)]
SIGLIP = {
    "image_processor_type": "SiglipImageProcessor",
    "do_resize": True,
    "size": {"height": 32, "width": 32},
    "resample": 3,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
}
OLD_CLIP = {**PREPROCESSOR, "size": 28, "crop_size": 28}


class Context:
    """The part of vLLM's processing context that the default mapper uses."""

    def __init__(self, config: dict[str, Any]) -> None:
        self._config = config

    def get_hf_image_processor_config(self) -> dict[str, Any]:
        return self._config


PADDED, ODDLY_PADDED = {**OLD_CLIP, "size": 20}, {**OLD_CLIP, "size": 21}


@pytest.mark.parametrize(
    "config", [PREPROCESSOR, SIGLIP, OLD_CLIP, PADDED, ODDLY_PADDED, {**PREPROCESSOR, "do_center_crop": False}]
)
def test_default_pixel_mapper_agrees_with_transformers(config: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(config))
    oracle = AutoImageProcessor.from_pretrained(tmp_path, backend="pil")
    items = [picture(seed, size) for seed, size in enumerate(SIZES)]
    found = map_image_pixels(Context(config), items)["pixel_values"]
    smallest_std = min(config["image_std"])
    for item, values in zip(items, found, strict=True):
        expected = oracle([item], return_tensors="pt")["pixel_values"][0]
        assert values.shape == expected.shape
        difference = (values - expected).abs() * smallest_std * 255
        # Both libraries round twice on the way; see run_batch.model.images.pixels.
        assert difference.max() <= 2.001 and (difference > 1.001).float().mean() < 1e-3


def noise(height: int, width: int, edges: bool = False) -> np.ndarray:
    values = np.random.default_rng(height * width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return (values > 127) * np.uint8(255) if edges else values


def as_pillow(image: np.ndarray, size: tuple[int, int], resample: Image.Resampling) -> np.ndarray:
    return np.asarray(Image.fromarray(image).resize((size[1], size[0]), resample))


def check_resize(resample: Image.Resampling) -> None:
    dice = random.Random(0)
    for number in range(60):
        height, width, *size = (dice.randrange(1, dice.choice((10, 100, 1000))) for _ in range(4))
        image = noise(height, width, edges=number % 2 == 0)
        image.flags.writeable = number % 3 > 0
        expected = as_pillow(image, (size[0], size[1]), resample)
        assert np.array_equal(resize(image, (size[0], size[1]), resample), expected)
        top, left = dice.randrange(size[0]), dice.randrange(size[1])
        window = Window(top, left, dice.randint(1, size[0] - top), dice.randint(1, size[1] - left))
        part = expected[top : top + window.height, left : left + window.width]
        assert np.array_equal(resize(image, (size[0], size[1]), resample, window), part)


def check_resize_of_long_images(resample: Image.Resampling) -> None:
    for height, width, size in ((3_000_000, 1, (40, 30)), (1, 3_000_000, (40, 30)), (40_000, 70, (336, 2))):
        image = noise(height, width)
        assert np.array_equal(resize(image, size, resample), as_pillow(image, size, resample))


@pytest.fixture(scope="module")
def worker() -> Iterator[ProcessPoolExecutor]:
    """A process that resizes as the workers do: this one may start vLLM later."""
    with ProcessPoolExecutor(1, get_context("fork"), compile_resize) as pool:
        yield pool


@pytest.mark.parametrize("check", [check_resize, check_resize_of_long_images])
@pytest.mark.parametrize("resample", Image.Resampling)
def test_images_are_resized_as_pillow_does_to_the_last_bit(
    resample: Image.Resampling, check: Callable[[Image.Resampling], None], worker: ProcessPoolExecutor
) -> None:
    worker.submit(check, resample).result()


def error_of(content: bytes) -> str:
    with pytest.raises(RowError) as caught:
        decode_image(content)
    return caught.value.kind


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF"])
def test_common_formats_are_decoded(form: str) -> None:
    image = decode_image(encoded(picture(1), form))
    assert image.pixels.shape == (120, 160, 3) and image.pixels.dtype == np.uint8
    assert np.abs(image.pixels.astype(int) - np.asarray(picture(1))).mean() < 16


def test_what_is_no_image_is_an_error_of_its_row() -> None:
    png, jpeg = encoded(picture(1)), encoded(picture(1), "JPEG")
    assert error_of(b"") == "image_empty"
    for content in (
        b"<html></html>",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"text",
        png[:60],
        jpeg[:300],
    ):
        assert error_of(content) == "image_decode"
    assert error_of(b"\x89PNG\r\n\x1a\n" + b"\0" * 40) == "image_decode"


def test_images_with_too_many_pixels_are_refused_before_they_are_decoded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(images, "MAX_PIXELS", 160 * 120 - 1)
    assert error_of(encoded(picture(1))) == "image_too_large"


def test_every_mode_becomes_rgb_as_people_see_it() -> None:
    rgb = Image.new("RGB", (4, 4), (200, 100, 50))
    transparent = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    gray16 = Image.fromarray(np.full((4, 4), 40000, np.uint16))
    for image, expected in [
        (rgb.convert("CMYK"), (200, 100, 50)),
        (rgb.convert("P"), (200, 100, 50)),
        (rgb.convert("L"), (124, 124, 124)),
        (transparent, (255, 255, 255)),
        (Image.new("LA", (4, 4), (0, 0)), (255, 255, 255)),
        (gray16, (156, 156, 156)),
        (Image.new("1", (4, 4), 1), (255, 255, 255)),
    ]:
        form = "TIFF" if image.mode == "CMYK" else "PNG"
        decoded = decode_image(encoded(image, form))
        assert decoded.pixels.shape == (4, 4, 3)
        assert np.abs(decoded.pixels[2, 2].astype(int) - expected).max() <= 12, image.mode


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(form: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    content = encoded(picture(1, (40, 20)), form, exif=exif)
    upright = decode_image(content)
    assert (upright.width, upright.height) == ((40, 20) if orientation < 5 else (20, 40))
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(content))).convert("RGB")
    assert np.array_equal(upright.pixels, np.asarray(expected))


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "1"])
@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_the_fast_decoder_gives_what_pillow_gives(form: str, mode: str) -> None:
    for seed, size in enumerate([(160, 120), (1, 1), (17, 333), (500, 7)]):
        image = picture(seed, size).convert(mode)
        content = encoded(image.convert("RGB") if form == "JPEG" and mode in ("P", "RGBA", "1") else image, form)
        expected = rgb_pixels(Image.open(io.BytesIO(content)))
        assert np.array_equal(decode_image(content).pixels, np.asarray(expected))


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_a_damaged_file_is_judged_as_pillow_judges_it(form: str) -> None:
    content = encoded(picture(5), form)
    rng = random.Random(7)
    accepted = 0
    for _ in range(300):
        damaged = bytearray(content)
        for _ in range(rng.choice((1, 1, 5))):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        if rng.random() < 0.3:
            del damaged[rng.randrange(2, len(damaged)) :]
        try:
            image = Image.open(io.BytesIO(damaged))
            image.load()
            expected = rgb_pixels(image)
        except Exception:
            accepted += decodes(bytes(damaged))
            continue
        assert np.array_equal(decode_image(bytes(damaged)).pixels, expected)
    assert accepted <= 5, "files that Pillow refuses"


def decodes(content: bytes) -> bool:
    try:
        decode_image(content)
    except RowError:
        return False
    return True


def test_scaled_decoding_stays_twice_as_large_as_needed_and_close_to_the_whole_image() -> None:
    settings = PixelSettings.from_config(PREPROCESSOR)
    content = encoded(picture(3, (1600, 1200)), "JPEG")
    whole, scaled = decode_image(content), decode_image(content, settings.resized)
    assert scaled.pixels.shape == (150, 200, 3)
    assert (scaled.width, scaled.height) == (1600, 1200)
    difference = resize_and_crop(whole.pixels, settings).int() - resize_and_crop(scaled.pixels, settings).int()
    assert difference.abs().max() <= 8 and difference.abs().float().mean() < 1
    small = encoded(picture(3, (100, 100)), "JPEG")
    assert np.array_equal(decode_image(small, settings.resized).pixels, decode_image(small).pixels)


def test_files_that_are_programs_are_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_: pytest.fail("it was run"))
    assert error_of(encoded(picture(1), "EPS")) == "image_decode"
