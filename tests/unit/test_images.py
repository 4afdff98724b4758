"""Decoding, and the default pixel mapper against transformers."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import PREPROCESSOR
from pictures import encoded, picture
from PIL import Image
from transformers import AutoImageProcessor

from run_batch.model import images
from run_batch.model.declaration import RowError
from run_batch.model.images import decode_image, map_image_pixels

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


@pytest.mark.parametrize("config", [PREPROCESSOR, SIGLIP, OLD_CLIP, {**PREPROCESSOR, "do_center_crop": False}])
def test_default_pixel_mapper_agrees_with_transformers(config: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(config))
    oracle = AutoImageProcessor.from_pretrained(tmp_path)
    items = [picture(seed, size) for seed, size in enumerate(SIZES)]
    found = map_image_pixels(Context(config), items)["pixel_values"]
    smallest_std = min(config["image_std"])
    for item, values in zip(items, found, strict=True):
        expected = oracle([item], return_tensors="pt")["pixel_values"][0]
        assert values.shape == expected.shape
        assert (values - expected).abs().max() * smallest_std <= 1 / 255 + 1e-6


def error_of(content: bytes) -> str:
    with pytest.raises(RowError) as caught:
        decode_image(content)
    return caught.value.kind


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF"])
def test_common_formats_are_decoded(form: str) -> None:
    image = decode_image(encoded(picture(1), form))
    assert image.mode == "RGB" and image.size == (160, 120)
    assert np.abs(np.asarray(image).astype(int) - np.asarray(picture(1))).mean() < 16


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
        assert decoded.mode == "RGB"
        assert np.abs(np.asarray(decoded)[2, 2].astype(int) - expected).max() <= 12, image.mode


def test_exif_orientation_is_applied() -> None:
    image = picture(1, (40, 20))
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    image.save(buffer, "PNG", exif=exif)
    upright = decode_image(buffer.getvalue())
    assert upright.size == (20, 40)
    assert np.array_equal(np.asarray(upright), np.asarray(image.transpose(Image.Transpose.ROTATE_270)))
