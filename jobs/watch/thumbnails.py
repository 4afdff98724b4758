"""Small pictures of images, for a page: always new JPEG files, never the bytes of the data."""

import io

from PIL import Image

from run_batch.model.declaration import RowError
from run_batch.model.images.decode import Size, decode_image

_SIDES = (256, 192, 128, 96, 64, 32, 16)
_QUALITY = 70


class NoThumbnailError(Exception):
    """An image cannot be decoded; the message says why."""


def thumbnail(encoded: bytes, max_bytes: int) -> bytes:
    """A small picture of an image, as a JPEG file.

    Args:
        encoded: an image file, decoded within the limits of a run.
        max_bytes: of the JPEG file.

    Raises:
        NoThumbnailError: it cannot be decoded, or not be made that small.
    """
    try:
        picture = decode_image(encoded, _needed_size).to_pil()
    except RowError as error:
        raise NoThumbnailError(str(error)) from None
    for side in _SIDES:
        picture.thumbnail((side, side))
        out = io.BytesIO()
        picture.save(out, "JPEG", quality=_QUALITY)
        if out.tell() <= max_bytes:
            return out.getvalue()
    raise NoThumbnailError("no small picture of it can be made")


def image_size(encoded: bytes) -> tuple[int, int] | None:
    """Width and height of an image file, as far as its beginning tells them."""
    try:
        with Image.open(io.BytesIO(encoded)) as image:
            return image.size
    except (OSError, ValueError, Image.DecompressionBombError):  # of a format that OpenCV reads alone
        return None


def _needed_size(size: Size) -> Size:
    scale = min(1.0, _SIDES[0] / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))
