"""Rows of every kind of trouble, for the demo's model: what each is, and what becomes of it."""

import io
import json
import os
import random
import struct
import zlib
from base64 import b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from pictures import encoded, picture
from PIL import Image
from safetensors.torch import save

Item = dict[str, Any] | None
IMAGE_TYPE = pa.list_(pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
QUESTION = b"is it even?"
HIDDEN_SIZE = 96


@dataclass(frozen=True, slots=True)
class BadRow:
    """One row that is not like the others.

    Attributes:
        kinds: the kinds of error that it may give; empty where it works; `refused` is the engine's word alone.
        images: its images, as structs of bytes and path; None for null.
        prompt: bytes, as they may be no UTF-8; None for null.
        same_as: the picture that the model sees, where the row works in spite of its looks.
    """

    kinds: tuple[str, ...]
    images: list[Item] | None
    prompt: bytes | None = QUESTION
    sampling: str | None = None
    same_as: Image.Image | None = None


Make = Callable[[random.Random], BadRow]
CASES: dict[str, Make] = {}


def case(name: str, make: Make) -> None:
    assert name not in CASES, name
    CASES[name] = make


def good_image(rng: random.Random) -> bytes:
    return encoded(picture(rng.randrange(1 << 30), (rng.randrange(20, 90), rng.randrange(20, 90))))


def of_bytes(content: bytes) -> list[Item]:
    return [{"bytes": content, "path": None}]


def of_path(path: str) -> list[Item]:
    return [{"bytes": None, "path": path}]


def png(width: int, height: int, lines: int | None = None) -> bytes:
    """A black PNG of any size, made without its pixels; of its lines only some where told so."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    squeeze, line = zlib.compressobj(9), bytes(1 + -(-width // 8))
    data = b"".join(squeeze.compress(line) for _ in range(height if lines is None else lines)) + squeeze.flush()
    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def npy(array: np.ndarray, pickled: bool = False) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=pickled)
    return buffer.getvalue()


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


def _features() -> None:
    """Precomputed features that the model cannot take."""

    def bad(content: Callable[[random.Random], bytes], *kinds: str) -> Make:
        return lambda rng: BadRow(kinds or ("features",), of_bytes(content(rng)))

    def whole(rng: random.Random) -> np.ndarray:
        return np.random.default_rng(rng.randrange(1 << 30)).normal(size=(16, HIDDEN_SIZE)).astype(np.float32)

    def with_value(value: float) -> Callable[[random.Random], bytes]:
        def make(rng: random.Random) -> bytes:
            array = whole(rng)
            array[rng.randrange(16), rng.randrange(HIDDEN_SIZE)] = value
            return npy(array)

        return make

    case("NaN features", bad(with_value(float("nan"))))
    case("infinite features", bad(with_value(float("-inf"))))
    case("features of another width", bad(lambda rng: npy(whole(rng)[:, :7])))
    case("features of one dimension", bad(lambda rng: npy(whole(rng)[0])))
    case("features of no rows", bad(lambda rng: npy(whole(rng)[:0])))
    case("features of whole numbers", bad(lambda rng: npy(whole(rng).astype(np.int64))))
    case("features of text", bad(lambda rng: npy(np.array([["a", "b"]]))))
    case("features of complex numbers", bad(lambda rng: npy(whole(rng).astype(np.complex64))))
    case("pickled features", bad(lambda rng: npy(np.array([Exception()], dtype=object), pickled=True)))
    case("truncated features", bad(lambda rng: npy(whole(rng))[: rng.randrange(10, 5000)]))
    case("features that promise terabytes", bad(lambda rng: _npy_head((1 << 34, HIDDEN_SIZE)) + bytes(64)))
    case("features of a negative shape", bad(lambda rng: _npy_head((-1, HIDDEN_SIZE)) + bytes(64)))
    case("damaged safetensors", bad(lambda rng: save({"a": torch.zeros(16, HIDDEN_SIZE)})[:-9]))
    case("two tensors", bad(lambda rng: save({"a": torch.zeros(2, 2), "b": torch.zeros(2, 2)})))
    case("safetensors of 8-bit floats", bad(lambda rng: save({"a": torch.zeros(3, 7).to(torch.float8_e5m2)})))
    case("more features than the context holds", bad(lambda rng: npy(np.tile(whole(rng), (40, 1))), "prompt_too_long"))


def _npy_head(shape: tuple[int, ...]) -> bytes:
    head = repr({"descr": "<f4", "fortran_order": False, "shape": shape}).encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\0" + struct.pack("<H", len(head)) + head


def _paths() -> None:
    """Paths that lead nowhere, or where they must not (see make_media)."""
    for name, path, kind in [
        ("missing file", "nothing.png", "image_not_found"),
        ("path in a file", "good.png/a.png", "image_unreadable"),
        ("empty path", "", "image_not_found"),
        ("path with NUL", "good\0.png", "image_not_found"),
        ("folder", "folder", "image_unreadable"),
        ("media root itself", ".", "image_unreadable"),
        ("FIFO", "fifo", "image_unreadable"),
        ("socket", "socket", "image_unreadable"),
        ("link to itself", "loop", "image_unreadable"),
        ("name that is too long", "a" * 5000, "image_unreadable"),
        ("file that is too large", "large", "image_too_large"),
        ("empty file", "empty.png", "image_empty"),
        ("file of text", "text.png", "image_decode"),
        ("path above the root", "../secret.png", "path_not_allowed"),
        ("absolute path", "/etc/hostname", "path_not_allowed"),
        ("device", "/dev/zero", "path_not_allowed"),
        ("link out of the root", "link.png", "path_not_allowed"),
        ("folder that is a link out of the root", "way-out/secret.png", "path_not_allowed"),
        ("URL of a host that is not listed", "https://images.example.org/a.png?key=s3cret", "url_not_allowed"),
        ("URL with a password", "http://user:s3cret@localhost/a.png", "url_not_allowed"),
        ("URL of a loopback address", "http://127.0.0.1:1/a.png", "url_not_allowed"),
        ("URL of cloud metadata", "http://169.254.169.254/latest/meta-data/", "url_not_allowed"),
        ("file URL", "file:///etc/hostname", "url_not_allowed"),
        ("data URL", "data:image/png;base64,iVBORw0KGgo=", "url_not_allowed"),
        ("URL of a bucket", "s3://key:s3cret@bucket/a.png", "url_not_allowed"),
    ]:
        case(name, lambda rng, path=path, kind=kind: BadRow((kind,), of_path(path)))  # type: ignore[misc]
    case("null in the list", lambda rng: BadRow(("image_null",), [*of_bytes(good_image(rng)), None]))
    case("struct of nulls", lambda rng: BadRow(("image_null",), [{"bytes": None, "path": None}]))
    case("more images than placeholders", lambda rng: BadRow(("placeholders",), 2 * of_bytes(good_image(rng))))
    case(
        "many times the largest file",
        lambda rng: BadRow(("image_too_large",), 40 * of_path("four-megabytes")),
    )


def make_media(root: Path) -> None:
    """The files that the paths of CASES name."""
    import socket

    (root / "folder").mkdir(parents=True)
    os.mkfifo(root / "fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        here = os.open(root, os.O_PATH)
        listener.bind(f"/proc/self/fd/{here}/socket")  # its own path may be longer than sockets allow
        os.close(here)
    (root / "loop").symlink_to("loop")
    (root / "link.png").symlink_to("../secret.png")
    (root / "way-out").symlink_to("..")
    (root.parent / "secret.png").write_bytes(encoded(picture(1)))
    (root / "good.png").write_bytes(encoded(picture(2)))
    (root / "text.png").write_text("no image")
    (root / "empty.png").touch()
    # A small image with zeros behind it: whole for a decoder, and large for a disk.
    for name, size in (("large", (128 << 20) + 1), ("four-megabytes", 4 << 20)):
        (root / name).write_bytes(encoded(picture(3, (9, 9))))
        os.truncate(root / name, size)


def _prompts() -> None:
    """Prompts that are no text, too long, or text like any other in spite of their looks."""

    def prompt(name: str, text: bytes | None, *kinds: str) -> None:
        case(name, lambda rng: BadRow(kinds, of_bytes(good_image(rng)), text))

    prompt("null prompt", None, "prompt_null")
    prompt("prompt that is too long", b"x" * 300, "prompt_too_long")
    prompt("prompt of megabytes", b"is it even? " * 200_000, "prompt_too_long")
    every_private = "".join(map(chr, [*range(0xE000, 0xF900), *range(0xF0000, 0xF0100)]))
    prompt(
        "prompt of all private characters and a placeholder", (every_private + "<image>").encode(), "prompt_too_long"
    )
    for name, text in {
        "lone byte": b"is it \xff even?",
        "surrogate": b"is it \xed\xa0\x80 even?",
        "cut character": b"is it even\xe2\x82",
        "overlong slash": b"..\xc0\xaf..",
        "UTF-16": "is it even?".encode("utf-16"),
    }.items():
        prompt(f"invalid UTF-8: {name}", text, "text_encoding")
    for name, text in {
        "empty": b"",
        "white space": b" \t\r\n ",
        "with placeholder": b"is <image> it <image> even?",
        "with special tokens": b"</s><s>USER: is it even?</s><pad><unk>",
        "with NUL": b"is it\0 even?",
        "with control characters": b"is \x1b[31m it \x08\x7f even?",
        "with braces": b"{prompt} {0} {uid} {{}} %s",
        "in other scripts": "هل هو زوجي؟ 是偶数吗? 👩‍👩‍👧 e\u0301\u202e".encode(),
        "with private characters": "\ue000<image>\ue0010\ue000".encode(),
    }.items():
        prompt(f"prompt {name}", text)


def _sampling() -> None:
    """Settings of single rows that vLLM does not take, or that would hurt the other rows."""
    refused: dict[str, Any] = {
        "unknown key": {"temprature": 1.0},
        "wrong type": {"temperature": "hot"},
        "nested wrong type": {"stop": {"a": 1}},
        "negative temperature": {"temperature": -1.0},
        "top_p above one": {"top_p": 1.5},
        "top_k of minus five": {"top_k": -5},
        "no tokens": {"max_tokens": 0},
        "more tokens at least than at most": {"min_tokens": 9, "max_tokens": 3},
        "NaN temperature": {"temperature": float("nan")},
        "infinite temperature": {"temperature": float("inf")},
        "infinite penalty": {"presence_penalty": float("inf")},
        "NaN penalty": {"repetition_penalty": float("nan")},
        "a billion sequences": {"n": 10**9},
        "many sequences": {"n": 5000},
        "seed of many digits": {"seed": 10**30},
        "negative seed": {"seed": -(2**63) - 1},
        "more tokens than a number holds": {"max_tokens": 2**70},
        "decided key": {"output_kind": 0},
        "empty stop text": {"stop": [""]},
        "empty bad word": {"bad_words": [""]},
        "two constraints": {"structured_outputs": {"regex": "a", "choice": ["a"]}},
        "unknown constraint": {"structured_outputs": {"shape": "round"}},
        "list": ["temperature"],
        "number": 5,
        "text": "temperature",
    }
    refused_by_engine: dict[str, Any] = {
        "logprobs of every token": {"logprobs": 10**6},
        "bias on a token that does not exist": {"logit_bias": {"99999999": 1.0}},
        "only a token that does not exist": {"allowed_token_ids": [99999999]},
        "no token allowed": {"allowed_token_ids": []},
        "stop token that does not exist": {"stop_token_ids": [2**40]},
        "negative stop token": {"stop_token_ids": [-1]},
        "pattern that is none": {"structured_outputs": {"regex": "((("}},
        "constraint of no choice": {"structured_outputs": {"choice": []}},
    }
    for name, settings in refused.items():
        case(f"sampling: {name}", _with_sampling(json.dumps(settings), "sampling"))
    for name, settings in refused_by_engine.items():
        case(f"sampling: {name}", _with_sampling(json.dumps(settings), "refused"))
    for name, text in {
        "not JSON": "temperature=1",
        "empty text": "",
        "JSON of great depth": "[" * 100_000,
        "number of many digits": '{"seed": ' + "9" * 10_000 + "}",
    }.items():
        case(f"sampling: {name}", _with_sampling(text, "sampling"))
    for name, text in {
        "nothing set": "{}",
        "null": "null",
        "null setting": '{"temperature": null}',
        "lone surrogate to stop at": '{"stop": "\\ud800"}',
        "settings that fit": '{"max_tokens": 3, "temperature": 0, "stop": ["zzz"]}',
        "choice": '{"structured_outputs": {"choice": ["yes", "no"]}}',
    }.items():
        case(f"sampling that works: {name}", _with_sampling(text))


def _with_sampling(text: str, *kinds: str) -> Make:
    return lambda rng: BadRow(kinds, of_bytes(good_image(rng)), sampling=text)


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


for _declare in (_images, _features, _paths, _prompts, _sampling, _looks):
    _declare()


def columns(rows: Sequence[BadRow]) -> pa.Table:
    """Rows as the columns image, prompt and own; text is taken as it is, UTF-8 or not."""
    prompts = pa.array([row.prompt for row in rows], pa.binary())
    return pa.table(
        {
            "image": pa.array([row.images for row in rows], IMAGE_TYPE),
            "prompt": pa.Array.from_buffers(pa.string(), len(rows), prompts.buffers(), prompts.null_count),
            "own": pa.array([row.sampling for row in rows], pa.string()),
        }
    )
