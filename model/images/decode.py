"""Encoded bytes to RGB images.

EXIF orientation is applied; transparent pixels are shown on white; 16-bit gray is scaled to 8 bits; of an animation
the first frame counts. These hold on every path into a model. JPEG and PNG files of the usual kinds are decoded by
OpenCV, value for value what Pillow gives, at up to twice its speed; all others, and those that are damaged, by Pillow.
"""

import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from run_batch.model.declaration import RowError

# Larger than any camera's picture, small enough that one hostile row cannot take a worker's memory (300 MB as RGB).
MAX_PIXELS = 100_000_000

# Pillow knows more: EPS, for one, which it has Ghostscript run as the program that it is.
_FORMATS = (
    *("JPEG", "JPEG2000", "PNG", "GIF", "WEBP", "AVIF", "TIFF", "BMP", "DIB"),
    *("PPM", "TGA", "PCX", "SGI", "ICO", "QOI"),
)
_FAST_MODES = ("RGB", "L")
# What PNG files say their orientation in, which Pillow reads and OpenCV may not.
_PNG_ORIENTATION = (b"eXIf", b"Raw profile type", b"XML:com.adobe.xmp")
_END_OF_JPEG, _END_OF_PNG = b"\xff\xd9", b"IEND\xaeB`\x82"
_SCALED = {
    1: cv2.IMREAD_COLOR_RGB,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}
_UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda image: cv2.flip(image, 1),
    3: lambda image: cv2.rotate(image, cv2.ROTATE_180),
    4: lambda image: cv2.flip(image, 0),
    5: cv2.transpose,
    6: lambda image: cv2.rotate(image, cv2.ROTATE_90_CLOCKWISE),
    7: lambda image: cv2.flip(cv2.transpose(image), -1),
    8: lambda image: cv2.rotate(image, cv2.ROTATE_90_COUNTERCLOCKWISE),
}


@dataclass(frozen=True, slots=True)
class DecodedImage:
    """An upright RGB image.

    Attributes:
        pixels: uint8 (height, width, 3); fewer pixels than `width` and `height` say where it was decoded scaled.
        width, height: of the whole image, in pixels.
    """

    pixels: np.ndarray
    width: int
    height: int

    def to_pil(self) -> Image.Image:
        return Image.fromarray(self.pixels)


def from_pil(image: Image.Image) -> DecodedImage:
    """A PIL image of any mode as a DecodedImage."""
    rgb = to_rgb(image)
    return DecodedImage(np.asarray(rgb), rgb.width, rgb.height)


def decode_image(
    encoded: bytes, needed_size: Callable[[tuple[int, int]], tuple[int, int]] | None = None
) -> DecodedImage:
    """Decode one image file.

    Args:
        needed_size: where given, a JPEG may be decoded at 1/2, 1/4 or 1/8 of its size (by leaving out high
            frequencies of its blocks), as long as it stays twice as large as `needed_size` of its (height, width).

    Raises:
        RowError: `image_empty`, `image_decode` or `image_too_large`.
    """
    if not encoded:
        raise RowError("image_empty", "the image has no bytes")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = Image.open(io.BytesIO(encoded), formats=_FORMATS)
            if image.width * image.height > MAX_PIXELS:
                raise RowError(
                    "image_too_large",
                    f"{image.width} x {image.height} pixels; the limit is {MAX_PIXELS:,} pixels",
                )
            return _decode_fast(image, encoded, needed_size) or _decode_any(image)
    except RowError:
        raise
    except UnidentifiedImageError:
        raise RowError("image_decode", f"not an image that can be read ({_first_bytes(encoded)})") from None
    except Image.DecompressionBombError as error:
        raise RowError("image_too_large", str(error)) from None
    # Pillow's decoders raise almost anything on damaged files (OSError, SyntaxError, ValueError, struct.error, ...).
    except Exception as error:
        raise RowError("image_decode", f"damaged image: {error}") from None


def _first_bytes(encoded: bytes) -> str:
    return f"{len(encoded)} bytes, starting with {encoded[:16]!r}"


def _decode_any(image: Image.Image) -> DecodedImage:
    image.load()
    # In place: a copy of an image that is upright already would cost more than decoding it.
    ImageOps.exif_transpose(image, in_place=True)
    return from_pil(image)


def _decode_fast(
    image: Image.Image, encoded: bytes, needed_size: Callable[[tuple[int, int]], tuple[int, int]] | None
) -> DecodedImage | None:
    """What OpenCV decodes as Pillow would; None for what it may not (`image` is opened, and not loaded)."""
    if image.mode not in _FAST_MODES:
        return None
    scale, orientation = 1, 1
    if image.format == "JPEG" and encoded.endswith(_END_OF_JPEG):
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
        if needed_size is not None:
            scale = _jpeg_scale((image.height, image.width), needed_size)
    elif not (image.format == "PNG" and _is_plain_png(image, encoded)):
        return None
    pixels = cv2.imdecode(np.frombuffer(encoded, np.uint8), _SCALED[scale] | cv2.IMREAD_IGNORE_ORIENTATION)
    if pixels is None:
        return None
    if scale > 1:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)
    width, height = image.size if orientation < 5 else image.size[::-1]
    upright = _UPRIGHT.get(orientation)
    return DecodedImage(pixels if upright is None else upright(pixels), width, height)


def _is_plain_png(image: Image.Image, encoded: bytes) -> bool:
    """Whole, with 8 bits a channel, without transparency, and as it should stand."""
    bits = encoded[24]
    said = "transparency" in image.info or any(mark in encoded for mark in _PNG_ORIENTATION)
    return bits == 8 and not said and encoded.endswith(_END_OF_PNG)


def _jpeg_scale(size: tuple[int, int], needed_size: Callable[[tuple[int, int]], tuple[int, int]]) -> int:
    needed = needed_size(size)
    return next(s for s in (8, 4, 2, 1) if s == 1 or all(a >= 2 * s * b for a, b in zip(size, needed, strict=True)))


def to_rgb(image: Image.Image) -> Image.Image:
    """Any Pillow mode to RGB, transparent pixels on white."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I;16") or image.mode == "I":
        return Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).clip(0, 255).astype(np.uint8)).convert("RGB")
    if "transparency" in image.info or image.mode in ("RGBA", "LA", "PA", "La", "RGBa"):
        image = image.convert("RGBA")
        background = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(background, image)
    return image.convert("RGB")
