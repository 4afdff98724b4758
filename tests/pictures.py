"""Images for tests: seeded, of any size, different from one another."""

import io
import random
from typing import Any

import numpy as np
from PIL import Image


def picture(seed: int, size: tuple[int, int] = (160, 120)) -> Image.Image:
    """A smooth colourful image (what a photograph looks like to a resizer), not noise."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
    return coarse.resize(size, Image.Resampling.BICUBIC)


def random_picture(rng: random.Random) -> Image.Image:
    """A picture of any shape."""
    return picture(rng.randrange(1 << 30), (rng.randrange(8, 300), rng.randrange(8, 300)))


def encoded(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()
