"""Decodes image files to RGB images, by the same rules on every path into a model.

EXIF orientation is applied, transparent pixels become white, deep gray is scaled to 8 bits (rgb.py), and an animation
gives its first frame. A PNG's pixels count, whatever else is in the file. OpenCV decodes the usual kinds of JPEG and
PNG files, to the same values as Pillow at up to twice its speed; Pillow decodes all others, and damaged files.
"""

import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import cv2
import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from run_batch.model.declaration import RowError
from run_batch.model.images import png
from run_batch.model.images.image_memory import need
from run_batch.model.images.jpeg import plain_jpeg
from run_batch.model.images.quiet import quiet_decoders
from run_batch.model.images.rgb import rgb_pixels

# (height, width) in pixels.
Size: TypeAlias = tuple[int, int]

# More than a camera's photograph has; few enough that a hostile row cannot exhaust the memory: 300 MB as RGB, and
# 0.6 GB (JPEG) to 2 GB (JPEG2000) while it is decoded, by one worker at a time (see image_memory.py).
MAX_PIXELS = 100_000_000

# Bytes of memory for each pixel while a file of such a format is decoded; of others, 10.
_DECODE_BYTES = {"JPEG": 6, "PNG": 8, "AVIF": 12, "WEBP": 17, "JPEG2000": 20}
# The same of a JPEG of which the coefficients of all components are in memory.
_PROGRESSIVE_BYTES = 12

# Pillow reads more formats, and not all are safe: an EPS file is a program, which it has Ghostscript run.
_FORMATS = (
    *("JPEG", "JPEG2000", "PNG", "GIF", "WEBP", "AVIF", "TIFF", "BMP", "DIB"),
    *("PPM", "TGA", "PCX", "SGI", "ICO", "QOI"),
)
_FAST_MODES = ("RGB", "L")
# Where a PNG file may hold an orientation, which Pillow applies and OpenCV may not.
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
        pixels: uint8 (height, width, 3); smaller than `width` and `height` where it was decoded at a reduced size.
        width, height: size of the image file's image in pixels, upright.
    """

    pixels: np.ndarray
    width: int
    height: int

    def to_pil(self) -> Image.Image:
        """The pixels as a PIL image in mode RGB."""
        return Image.fromarray(self.pixels)


def from_pil(image: Image.Image) -> DecodedImage:
    """Convert a PIL image of any mode."""
    return DecodedImage(rgb_pixels(image), image.width, image.height)


def decode_image(encoded: bytes, needed_size: Callable[[Size], Size] | None = None) -> DecodedImage:
    """Decode one image file.

    Args:
        needed_size: function of (height, width) to the (height, width) that is needed. Where given, a JPEG may be
            decoded at 1/2, 1/4 or 1/8 of its size (without the high frequencies of its blocks), as long as it stays
            at least twice as large as needed.

    Raises:
        RowError: `image_empty`, `image_decode` or `image_too_large`.
    """
    if not encoded:
        raise RowError("image_empty", "the image has no bytes")
    with warnings.catch_warnings(), quiet_decoders():
        warnings.simplefilter("ignore")
        try:
            return _decode(encoded, needed_size)
        except RowError:
            raise
        # Pillow's decoders raise almost anything on damaged files: OSError, SyntaxError, ValueError, struct.error.
        except Exception as error:
            simple = png.without_metadata(encoded)
            if simple is None:
                raise _row_error(error, encoded) from None
        try:
            return _decode(simple, needed_size)
        except RowError:
            raise
        except Exception as error:
            raise _row_error(error, encoded) from None


def file_format(encoded: bytes) -> str:
    """The format of an image file that `decode_image` decodes, as Pillow names it: `JPEG`, `PNG`, ..."""
    with warnings.catch_warnings(), quiet_decoders():
        warnings.simplefilter("ignore")
        try:
            return Image.open(io.BytesIO(encoded), formats=_FORMATS).format or ""
        except Exception:  # a PNG that is decoded without its metadata
            return "PNG" if encoded.startswith(png.SIGNATURE) else ""


def image_size(encoded: bytes) -> tuple[int, int]:
    """(width, height) of an image file in pixels, from its header; (0, 0) where that cannot be read."""
    with warnings.catch_warnings(), quiet_decoders():
        warnings.simplefilter("ignore")
        try:
            return Image.open(io.BytesIO(encoded), formats=_FORMATS).size
        except Exception:  # Pillow raises almost anything on damaged files
            return (0, 0)


def _row_error(error: Exception, encoded: bytes) -> RowError:
    if isinstance(error, UnidentifiedImageError):
        return RowError("image_decode", f"not an image that can be read ({_first_bytes(encoded)})")
    if isinstance(error, Image.DecompressionBombError):
        return RowError("image_too_large", str(error))
    return RowError("image_decode", f"damaged image: {error}")


def _first_bytes(encoded: bytes) -> str:
    return f"{len(encoded)} bytes, starting with {encoded[:16]!r}"


def _decode(encoded: bytes, needed_size: Callable[[Size], Size] | None) -> DecodedImage:
    plain = plain_jpeg(encoded)
    # Pillow has a limit of its own, which a plugin may set.
    if plain is None or plain.width * plain.height > min(MAX_PIXELS, 2 * (Image.MAX_IMAGE_PIXELS or MAX_PIXELS)):
        return _decode_any(encoded, needed_size)
    need(plain.width * plain.height * (_PROGRESSIVE_BYTES if plain.is_progressive else _DECODE_BYTES["JPEG"]))
    scale = 1 if needed_size is None else _jpeg_scale((plain.height, plain.width), needed_size)
    decoded = _by_opencv(encoded, (plain.width, plain.height), scale, 1)
    return decoded or _decode_by_pillow(Image.open(io.BytesIO(encoded), formats=_FORMATS), encoded)


def _decode_any(encoded: bytes, needed_size: Callable[[Size], Size] | None) -> DecodedImage:
    image = Image.open(io.BytesIO(encoded), formats=_FORMATS)
    if image.width * image.height > MAX_PIXELS:
        raise RowError("image_too_large", f"{image.width} x {image.height} pixels; the limit is {MAX_PIXELS:,} pixels")
    need(image.width * image.height * _decode_bytes(image))
    if getattr(image, "default_image", False):
        return _decode_first_frame(image, encoded)
    return _decode_by_opencv(image, encoded, needed_size) or _decode_by_pillow(image, encoded)


def _decode_bytes(image: Image.Image) -> int:
    """Bytes that decoding takes for each pixel at most, with the pixels that it gives; measured."""
    if image.format == "JPEG" and (image.mode == "CMYK" or "progressive" in image.info):
        return _PROGRESSIVE_BYTES
    return _DECODE_BYTES.get(image.format or "", 10)


def _decode_first_frame(animation: Image.Image, encoded: bytes) -> DecodedImage:
    """The first frame of an animated PNG whose default image is no part of the animation; the latter if it has none."""
    frame = png.first_frame(encoded)
    if frame is None:
        return _decode(png.without_metadata(encoded) or encoded, None)
    decoded = _decode(frame.png, None)
    canvas = _on_white(decoded.pixels, animation.size, frame.left, frame.top)
    return _upright(canvas, _orientation(animation))


def _decode_by_pillow(image: Image.Image, encoded: bytes) -> DecodedImage:
    if image.format == "PNG":
        _scale_transparent_color(image, encoded[24])
    # The first frame of a GIF may leave some of the canvas free.
    tiles = getattr(image, "tile", None) if image.format == "GIF" else None
    box = tiles[0][1] if tiles else None
    image.load()
    pixels = rgb_pixels(image)
    if box is not None and box != (0, 0, *image.size) and "transparency" not in image.info:
        pixels = _on_white(pixels[box[1] : box[3], box[0] : box[2]], image.size, box[0], box[1])
    orientation = _orientation(image)
    image.close()  # frees its pixels before they are turned
    return _upright(pixels, orientation)


def _on_white(pixels: np.ndarray, size: tuple[int, int], left: int, top: int) -> np.ndarray:
    """Pixels at their place on a white canvas of (width, height)."""
    if pixels.shape[:2] == (size[1], size[0]):
        return pixels
    canvas = np.full((size[1], size[0], 3), 255, np.uint8)
    canvas[top : top + pixels.shape[0], left : left + pixels.shape[1]] = pixels
    return canvas


def _scale_transparent_color(image: Image.Image, bits: int) -> None:
    """Bring a PNG's transparent color to 8 bits per channel, as Pillow does with the pixels but not with it."""
    color = image.info.get("transparency")
    if image.mode == "L" and bits < 8 and isinstance(color, int):
        image.info["transparency"] = color * 255 // ((1 << bits) - 1)
    elif image.mode == "RGB" and bits == 16 and isinstance(color, tuple):
        image.info["transparency"] = tuple(value >> 8 for value in color)


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; 1 where the file has none, or none that can be read."""
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    # Of damaged metadata, Pillow raises almost anything.
    except Exception:
        return 1
    return int(orientation) if isinstance(orientation, int | float) and orientation in _UPRIGHT else 1


def _upright(pixels: np.ndarray, orientation: int) -> DecodedImage:
    turn = _UPRIGHT.get(orientation)
    upright = pixels if turn is None else turn(pixels)
    return DecodedImage(upright, upright.shape[1], upright.shape[0])


def _decode_by_opencv(
    image: Image.Image, encoded: bytes, needed_size: Callable[[Size], Size] | None
) -> DecodedImage | None:
    """Decode by OpenCV; None for files that it may decode to other values than Pillow. `image` is not loaded yet."""
    if image.mode not in _FAST_MODES:
        return None
    scale, orientation = 1, 1
    if image.format == "JPEG" and encoded.endswith(_END_OF_JPEG):
        orientation = _orientation(image)
        if needed_size is not None:
            scale = _jpeg_scale((image.height, image.width), needed_size)
    elif not (image.format == "PNG" and _is_plain_png(image, encoded)):
        return None
    return _by_opencv(encoded, image.size, scale, orientation)


def _by_opencv(encoded: bytes, size: tuple[int, int], scale: int, orientation: int) -> DecodedImage | None:
    """Decode a file of (width, height) at 1 / `scale` of that; None where OpenCV does not."""
    pixels = cv2.imdecode(np.frombuffer(encoded, np.uint8), _SCALED[scale] | cv2.IMREAD_IGNORE_ORIENTATION)
    if pixels is None:
        return None
    if scale > 1:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)
    width, height = size if orientation < 5 else size[::-1]
    turn = _UPRIGHT.get(orientation)
    return DecodedImage(pixels if turn is None else turn(pixels), width, height)


def _is_plain_png(image: Image.Image, encoded: bytes) -> bool:
    """Whether a PNG is complete, has 8 bits per channel, and holds neither transparency nor an orientation."""
    bits = encoded[24]
    special = "transparency" in image.info or any(mark in encoded for mark in _PNG_ORIENTATION)
    return bits == 8 and not special and encoded.endswith(_END_OF_PNG)


def _jpeg_scale(size: Size, needed_size: Callable[[Size], Size]) -> int:
    needed = needed_size(size)
    return next(s for s in (8, 4, 2, 1) if s == 1 or all(a >= 2 * s * b for a, b in zip(size, needed, strict=True)))
