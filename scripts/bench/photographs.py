"""Creates images with the entropy of photographs, from those in scikit-image and scikit-learn (see their licences).

Every image is different: windows of several photographs, at about their original resolution, are placed side by side.
They are encoded as is common for cameras and the web: JPEG at quality 90 with 4:2:0 chroma, or PNG.
"""

import io
import random
import subprocess
import sys
from pathlib import Path

from PIL import Image

PACKAGES = ("scikit-image==0.26.0", "scikit-learn==1.9.1")
# The colour photographs in the packages' data; their other images are drawings, scans and micrographs.
NAMES = (
    *("astronaut.png", "chelsea.png", "coffee.png", "hubble_deep_field.jpg", "motorcycle_left.png"),
    *("motorcycle_right.png", "retina.jpg", "rocket.jpg", "china.jpg", "flower.jpg"),
)


def load_photographs(folder: Path) -> list[Image.Image]:
    """Load the photographs; the first call installs their packages into `folder` with pip. No package is imported."""
    if not folder.exists():
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder), *PACKAGES]
        subprocess.run(command, check=True)
    found = [path for path in sorted(folder.rglob("*")) if path.name in NAMES]
    return [Image.open(path).convert("RGB") for path in found]


def compose(photographs: list[Image.Image], width: int, height: int, rng: random.Random) -> Image.Image:
    """Compose an image of `width` x `height` pixels from tiles that are no larger than the photographs can fill."""
    down, across = -(-height // 480), -(-width // 640)
    image = Image.new("RGB", (width, height))
    for row in range(down):
        for column in range(across):
            top, bottom = height * row // down, height * (row + 1) // down
            left, right = width * column // across, width * (column + 1) // across
            image.paste(cut(rng.choice(photographs), right - left, bottom - top, rng), (left, top))
    return image


def cut(photograph: Image.Image, width: int, height: int, rng: random.Random) -> Image.Image:
    """Cut a random window of `width` x `height` pixels; a smaller photograph is enlarged."""
    scale = max(1.0, width / photograph.width, height / photograph.height)
    window = (int(width / scale), int(height / scale))
    left = rng.randint(0, photograph.width - window[0])
    top = rng.randint(0, photograph.height - window[1])
    box = (left, top, left + window[0], top + window[1])
    image = photograph.resize((width, height), Image.Resampling.BICUBIC, box=box)
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if rng.random() < 0.5 else image


def encode(image: Image.Image, form: str) -> bytes:
    buffer = io.BytesIO()
    if form == "JPEG":
        image.save(buffer, form, quality=90, subsampling="4:2:0")
    else:
        image.save(buffer, form)
    return buffer.getvalue()
