"""Bytes that are no image, and images that are rare and right."""

import io
import random
import struct
import zlib
from base64 import b64encode
from collections.abc import Callable
from typing import Any

import numpy as np
from pictures import encoded, picture
from PIL import Image

from bad_rows.row import BadRow, Make, case, of_bytes


def png(width: int, height: int, lines: int | None = None) -> bytes:
    """A black PNG of any size, made without its pixels; of its lines only some where told so."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    squeeze, line = zlib.compressobj(9), bytes(1 + -(-width // 8))
    data = b"".join(squeeze.compress(line) for _ in range(height if lines is None else lines)) + squeeze.flush()
    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def _images() -> None:
    """Bytes that are no image, or one that is too large."""

    def cut(form: str) -> Make:
        def make(rng: random.Random) -> BadRow:
            whole = encoded(picture(rng.randrange(1 << 30), (90, 80)), form)
            return BadRow(("image_decode",), of_bytes(whole[: rng.randrange(len(whole) // 8, len(whole) // 2)]))

        return make

    for form in ("JPEG", "PNG", "WEBP", "BMP", "TIFF"):
        case(f"truncated {form}", cut(form))
    for name, content in {
        "text": b"this is no image, it is a sentence",
        "text with a brace as ninth character": b"var x = {a: 1}; and so on and so forth",
        "SVG": b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'><rect width='9' height='9'/></svg>",
        "HTML": b"<!DOCTYPE html><html><body>404 Not Found</body></html>",
        "JSON": b'{"error": "rate limit"}',
        "PDF": b"%PDF-1.7\n1 0 obj\n<< /Type /Catalog >>\nendobj\n",
        "EPS": encoded(picture(6, (20, 20)), "EPS"),
        "gzip": b"\x1f\x8b\x08\0\0\0\0\0\0\x03" + bytes(40),
        "one byte": b"\xff",
        "zeros": bytes(4096),
        "signature of PNG alone": b"\x89PNG\r\n\x1a\n",
        "signature of JPEG alone": b"\xff\xd8\xff\xe0\0\x10JFIF\0",
        "base64 instead of bytes": b64encode(encoded(picture(4))),
        "git-lfs pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n",
        "image of no pixels": b"GIF89a\0\0\0\0\0\0\0;",
    }.items():
        case(name, lambda rng, content=content: BadRow(("image_decode",), of_bytes(content)))  # type: ignore[misc]
    case("no bytes", lambda rng: BadRow(("image_empty",), of_bytes(b"")))
    case("noise", lambda rng: BadRow(("image_decode",), of_bytes(b"\x07" + rng.randbytes(rng.randrange(30, 3000)))))
    case("decompression bomb", lambda rng: BadRow(("image_too_large",), of_bytes(png(30_000, 30_000))))
    case("bomb by its head alone", lambda rng: BadRow(("image_too_large",), of_bytes(png(200_000, 200_000, lines=9))))
    case("longer than can be resized", lambda rng: BadRow(("image_too_large",), of_bytes(png(4_000_000, 1))))
    case(
        "many large images for one placeholder",
        lambda rng: BadRow(("placeholders",), 4 * of_bytes(png(9_000, 8_000 + rng.randrange(99)))),
    )


def _looks() -> None:
    """Images that are rare and right."""

    def looks(name: str, make: Callable[[Image.Image], tuple[bytes, Image.Image]]) -> None:
        def row(rng: random.Random) -> BadRow:
            content, seen = make(picture(rng.randrange(1 << 30), (rng.randrange(40, 90), rng.randrange(40, 90))))
            return BadRow((), of_bytes(content), same_as=seen)

        case(name, row)

    def saved(image: Image.Image, form: str, **options: Any) -> bytes:
        buffer = io.BytesIO()
        image.save(buffer, form, **options)
        return buffer.getvalue()

    def gray(image: Image.Image) -> Image.Image:
        return image.convert("L").convert("RGB")

    def sixteen(image: Image.Image) -> bytes:
        return saved(Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257), "PNG")

    def see_through(image: Image.Image) -> tuple[bytes, Image.Image]:
        mask = Image.new("L", image.size, 255)
        mask.paste(0, (0, 0, image.width // 2, image.height))
        seen = Image.composite(image, Image.new("RGB", image.size, "white"), mask)
        return saved(Image.merge("RGBA", (*image.split(), mask)), "PNG"), seen

    def palette(image: Image.Image) -> tuple[bytes, Image.Image]:
        few = image.quantize(8)
        first = few.getpixel((0, 0))
        mask = few.point([255 * (i != first) for i in range(256)], "L")
        return saved(few, "PNG", transparency=first), Image.composite(
            few.convert("RGB"), Image.new("RGB", image.size, "white"), mask
        )

    def turned(image: Image.Image) -> tuple[bytes, Image.Image]:
        exif = Image.Exif()
        exif[0x0112] = 6
        return saved(image, "PNG", exif=exif), image.transpose(Image.Transpose.ROTATE_270)

    def stretched(size: tuple[int, int]) -> Callable[[Image.Image], tuple[bytes, Image.Image]]:
        return lambda image: (saved(image.resize(size), "PNG"), image.resize(size))

    def animated(form: str) -> Callable[[Image.Image], tuple[bytes, Image.Image]]:
        def make(image: Image.Image) -> tuple[bytes, Image.Image]:
            few = image.quantize(32).convert("RGB")
            others = [Image.new("RGB", image.size, color) for color in ("red", "blue")]
            return saved(few, form, save_all=True, append_images=others, lossless=True), few

        return make

    looks("CMYK JPEG", lambda image: (saved(image.convert("CMYK"), "JPEG", quality=95), image))
    looks("gray JPEG", lambda image: (saved(image.convert("L"), "JPEG", quality=95), gray(image)))
    looks("gray with transparency", lambda image: (saved(image.convert("LA"), "PNG"), gray(image)))
    looks("16-bit gray", lambda image: (sixteen(image), gray(image)))
    looks("one-bit", lambda image: (saved(image.convert("1"), "PNG"), image.convert("1").convert("RGB")))
    looks("transparent pixels", see_through)
    looks("palette with transparency", palette)
    looks("animated GIF", animated("GIF"))
    looks("animated WEBP", animated("WEBP"))
    looks("EXIF-rotated", turned)
    looks("broken EXIF", lambda image: (saved(image, "JPEG", quality=95, exif=b"Exif\0\0broken"), image))
    looks("broken ICC profile", lambda image: (saved(image, "PNG", icc_profile=b"no profile"), image))
    looks("one pixel", stretched((1, 1)))
    looks("one pixel high", stretched((300, 1)))
    looks("30,000 pixels wide", stretched((30_000, 20)))
    looks("30,000 pixels high", stretched((3, 30_000)))
    looks("progressive JPEG", lambda image: (saved(image, "JPEG", quality=95, progressive=True), image))
    looks("bytes behind the end", lambda image: (saved(image, "PNG") + b"<?php", image))
    case(
        "wrong extension", lambda rng: BadRow((), [{"bytes": encoded(picture(5)), "path": "a.txt"}], same_as=picture(5))
    )
    case("null image", lambda rng: BadRow((), None))
    case("empty list of images", lambda rng: BadRow((), []))


_images()
_looks()
