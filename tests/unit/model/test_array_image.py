"""An image around an array is to Pillow, NumPy and a processor what Pillow's own image of these pixels is."""

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageOps

from run_batch.model.images.array_image import ArrayImage

PIXELS = np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8)


def drawn(image: Image.Image) -> Image.Image:
    ImageDraw.Draw(image).line((0, 0, 60, 40), fill=(1, 2, 3), width=3)
    return image


def pasted(image: Image.Image) -> Image.Image:
    canvas = Image.new("RGB", (100, 100))
    canvas.paste(image, (5, 5))
    return canvas


def set_pixel(image: Image.Image) -> Image.Image:
    image.load()[3, 4] = (7, 8, 9)  # type: ignore[index]
    return image


def of_changed_copy(image: Image.Image) -> Image.Image:
    drawn(image.copy())
    return image


@pytest.mark.parametrize(
    "use",
    [
        *(np.array, np.asarray, copy.copy, copy.deepcopy, drawn, pasted, set_pixel, of_changed_copy),
        *(ImageOps.exif_transpose, lambda i: ImageOps.expand(i, 4), lambda i: pickle.loads(pickle.dumps(i))),
        *(lambda i: i.resize((20, 30), 3), lambda i: i.crop((1, 2, 30, 80)), lambda i: i.rotate(30)),
        *(lambda i: i.convert("RGB"), lambda i: i.convert("L"), lambda i: i.convert("RGBA"), lambda i: i.copy()),
        *(
            lambda i: i.transpose(Image.Transpose.ROTATE_90),
            lambda i: i.thumbnail((20, 20)) or i,
            lambda i: i.split()[1],
        ),
        *(lambda i: i.load()[3, 4], lambda i: i.getpixel((3, 4)), lambda i: i.size, lambda i: list(i.tobytes())),
        *(lambda i: i == i.copy(), lambda i: i.mode == "RGB", lambda i: i.getexif().get(274), lambda i: i.getbands()),
    ],
)
def test_it_is_used_like_pillows_own(use: Callable[[Any], Any]) -> None:
    before = PIXELS.copy()
    found, expected = use(ArrayImage(PIXELS)), use(Image.fromarray(PIXELS))
    if isinstance(expected, Image.Image):
        assert (found.mode, found.size, found.tobytes()) == (expected.mode, expected.size, expected.tobytes())
    assert np.array_equal(np.asarray(found), np.asarray(expected))
    assert np.array_equal(PIXELS, before), "what is drawn goes into a copy"


def test_an_array_of_it_takes_no_copy_cannot_be_written_and_outlives_it() -> None:
    pixels = PIXELS.copy()
    image = ArrayImage(pixels)
    view = np.asarray(image)
    assert np.shares_memory(view, pixels) and not view.flags.writeable
    drawn(image)
    del image, pixels
    assert np.array_equal(view, PIXELS)
    assert not np.array_equal(np.asarray(drawn(ArrayImage(PIXELS))), PIXELS)


def test_rows_that_are_turned_or_mirrored_are_laid_out_anew() -> None:
    turned = np.rot90(PIXELS)
    assert np.array_equal(np.asarray(ArrayImage(turned)), turned) and ArrayImage(turned).size == (50, 70)
