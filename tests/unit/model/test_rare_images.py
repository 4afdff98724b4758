"""Images that are rare and right: each is shown as a viewer shows it, or fails for what is wrong with its pixels."""

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from pictures import encoded, picture
from PIL import Image

from run_batch.model.declaration import RowError
from run_batch.model.images.decode import decode_image

RED, GREEN, BLUE, WHITE = (200, 0, 0), (0, 200, 0), (0, 0, 200), (255, 255, 255)
RAMP = np.linspace(0, 1, 64)[None].repeat(8, 0)
LONG = b"a" * 3_000_000


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(*chunks: bytes, size: tuple[int, int] = (8, 8), color: int = 2, bits: int = 8) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", *size, bits, color, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + chunk(b"IEND", b"")


def filled(color: tuple[int, ...], size: tuple[int, int] = (8, 8)) -> bytes:
    return lines([bytes(color) * size[0]] * size[1])


def lines(rows: list[bytes]) -> bytes:
    return zlib.compress(b"".join(b"\0" + row for row in rows))


def control(number: int, size: tuple[int, int] = (8, 8), place: tuple[int, int] = (0, 0), blend: int = 0) -> bytes:
    return chunk(b"fcTL", struct.pack(">5I2H2B", number, *size, *place, 1, 10, 0, blend))


def frame(number: int, data: bytes) -> bytes:
    return chunk(b"fdAT", struct.pack(">I", number) + data)


def frames(count: int) -> bytes:
    return chunk(b"acTL", struct.pack(">II", count, 0))


def seen(content: bytes) -> np.ndarray:
    return decode_image(content).pixels


DEFAULT = chunk(b"IDAT", filled(RED))


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("blend", [0, 1])
def test_an_animation_is_seen_by_its_first_frame_and_not_by_a_default_image_beside_it(count: int, blend: int) -> None:
    second = control(2) + frame(3, filled(BLUE)) if count == 2 else b""
    content = png(frames(count), DEFAULT, control(0, blend=blend), frame(1, filled(GREEN)), second)
    assert (seen(content) == GREEN).all()
    translucent = png(
        frames(count),
        chunk(b"IDAT", filled((*RED, 255))),
        control(0, blend=blend),
        frame(1, filled((*GREEN, 0))),
        color=6,
    )
    assert (seen(translucent) == WHITE).all()


def test_a_first_frame_that_is_part_of_the_canvas_stands_at_its_place_on_white() -> None:
    content = png(frames(1), DEFAULT, control(0, (4, 2), (3, 5)), frame(1, filled(GREEN, (4, 2))))
    expected = np.full((8, 8, 3), 255)
    expected[5:7, 3:7] = GREEN
    assert np.array_equal(seen(content), expected)


def test_a_default_image_that_is_the_first_frame_is_seen() -> None:
    assert (seen(png(frames(2), control(0), DEFAULT, control(1), frame(2, filled(GREEN)))) == RED).all()


@pytest.mark.parametrize(
    "chunks",
    [
        (frames(2), DEFAULT),
        (frames(2), DEFAULT, control(0), frame(1, b"damaged")),
        (frames(2), DEFAULT, control(0, (9, 9)), frame(1, filled(GREEN, (9, 9)))),
        (frames(2), DEFAULT, control(0), frame(1, filled(GREEN))[:-1] + b"\0"),
        (frames(2), control(7), DEFAULT, control(1), frame(2, filled(GREEN))),
    ],
)
def test_a_damaged_animation_is_seen_by_its_default_image(chunks: tuple[bytes, ...]) -> None:
    assert (seen(png(*chunks)) == RED).all()


def exif(orientation: int) -> bytes:
    return b"MM\0*\0\0\0\x08\0\x01" + struct.pack(">HHIHH", 0x112, 3, 1, orientation, 0) + bytes(4)


def test_an_animation_is_turned_upright() -> None:
    green = chunk(b"eXIf", exif(6)), frames(1), chunk(b"IDAT", filled(RED, (8, 4))), control(0, (2, 4))
    pixels = seen(png(*green, frame(1, filled(GREEN, (2, 4))), size=(8, 4)))
    assert pixels.shape == (8, 4, 3)
    assert (pixels[:2] == GREEN).all() and (pixels[2:] == WHITE).all()


@pytest.mark.parametrize("place", [(0, 0), (4, 4)])
def test_what_the_first_frame_of_a_gif_leaves_free_is_white(place: tuple[int, int]) -> None:
    content = bytearray(encoded(Image.new("RGB", (4, 4), RED), "GIF"))
    content[6:10] = struct.pack("<HH", 8, 8)
    start = content.index(b",")
    content[start + 1 : start + 5] = struct.pack("<HH", *place)
    expected = np.full((8, 8, 3), 255)
    expected[place[1] : place[1] + 4, place[0] : place[0] + 4] = RED
    assert np.array_equal(seen(bytes(content)), expected)


def tiff(values: np.ndarray, bits: int, sample_format: int = 1, photometric: int = 1, data: bytes = b"") -> bytes:
    """A TIFF of one strip, as Pillow does not write them."""
    data, (height, width) = data or values.tobytes(), values.shape
    tags = {256: width, 257: height, 258: bits, 259: 1, 262: photometric, 273: 8, 277: 1, 278: height}
    tags |= {279: len(data), 339: sample_format}
    entries = b"".join(struct.pack("<HHII", tag, 4 if tag in (273, 279) else 3, 1, v) for tag, v in tags.items())
    return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + struct.pack("<H", len(tags)) + entries + bytes(4)


def twelve_bits(values: np.ndarray) -> bytes:
    pairs = values.astype(int).reshape(-1, 2)
    return b"".join(bytes((a >> 4, (a & 15) << 4 | b >> 8, b & 255)) for a, b in pairs.tolist())


def with_nan(values: np.ndarray) -> np.ndarray:
    changed = values.astype(np.float32)
    changed[0, 0], changed[1, 0] = np.nan, -np.inf
    return changed


@pytest.mark.parametrize(
    "content",
    [
        *(encoded(Image.fromarray((RAMP * high).astype(np.int32)), "TIFF") for high in (255, 1000, 4095, 65535, 2e9)),
        *(encoded(Image.fromarray((RAMP * high).astype(np.float32)), "TIFF") for high in (1, 255, 1e4, 1e30)),
        encoded(Image.fromarray((RAMP * 2000 - 1000).astype(np.int32)), "TIFF"),
        encoded(Image.fromarray((RAMP * 2 - 1).astype(np.float32)), "TIFF"),
        encoded(Image.fromarray(with_nan(RAMP)), "TIFF"),
        *(encoded(Image.fromarray((RAMP * 65535).astype(np.uint16)), form) for form in ("PNG", "TIFF", "JPEG2000")),
        tiff((RAMP * 4e9).astype("<u4"), 32),
        tiff((RAMP * 2000 - 1000).astype("<i2"), 16, sample_format=2),
        tiff(RAMP, 12, data=twelve_bits(RAMP * 4095)),
        tiff((65535 - RAMP * 65535).astype("<u2"), 16, photometric=0),
        tiff((1 - RAMP).astype("<f4"), 32, sample_format=3, photometric=0),
        b"P5 64 8 4095\n" + (RAMP * 4095).astype(">u2").tobytes(),
        b"Pf\n64 8\n-1.0\n" + RAMP.astype("<f4").tobytes(),
    ],
)
def test_deep_gray_from_black_to_white_is_seen_so(content: bytes) -> None:
    assert np.abs(seen(content)[:, :, 1] - RAMP * 255).max() <= 1.01


def test_deep_gray_on_a_known_scale_is_not_spread() -> None:
    for values in (
        np.full((4, 4), 51, np.int32),
        np.full((4, 4), 0.2, np.float32),
        np.full((4, 4), 51 * 257, np.uint16),
        np.array([[51, 51], [60, 70]], np.float32),
    ):
        assert seen(encoded(Image.fromarray(values), "TIFF"))[0, 0].tolist() == [51] * 3
    assert (seen(encoded(Image.fromarray(np.full((4, 4), 70_000, np.int32)), "TIFF")) == 128).all()


def test_gray_without_a_finite_value_is_an_error_of_its_row() -> None:
    with pytest.raises(RowError, match="image_decode: none of the image's values is a finite number"):
        seen(encoded(Image.fromarray(np.full((4, 4), np.nan, np.float32)), "TIFF"))


def test_large_deep_gray_is_converted_like_small_one() -> None:
    values = np.arange(2100 * 1000, dtype=np.int32).reshape(2100, 1000)
    found = seen(encoded(Image.fromarray(values), "TIFF"))[:, :, 0]
    assert np.abs(found - values * (255 / values.max())).max() <= 0.51


@pytest.mark.parametrize(
    ("bits", "color", "row", "key", "expected"),
    [
        (2, 0, bytes([0b00_01_10_11]), (1,), [0, 255, 170, 255]),
        (4, 0, bytes([0x07, 0xF7]), (7,), [0, 255, 255, 255]),
        (1, 0, bytes([0b0101_0101]), (0,), [255] * 4),
        (8, 0, bytes([0, 7, 100, 200]), (7,), [0, 255, 100, 200]),
        (16, 0, struct.pack(">4H", 0, 4660, 25700, 65535), (4660,), [0, 255, 100, 255]),
        (
            16,
            2,
            struct.pack(">12H", *[0] * 3, *[4660] * 3, *[25700] * 3, *[65535] * 3),
            (4660,) * 3,
            [0, 255, 100, 255],
        ),
    ],
)
def test_the_transparent_color_of_a_png_is_white_at_any_depth(
    bits: int, color: int, row: bytes, key: tuple[int, ...], expected: list[int]
) -> None:
    transparency = chunk(b"tRNS", struct.pack(f">{len(key)}H", *key))
    content = png(transparency, chunk(b"IDAT", lines([row])), size=(4, 1), color=color, bits=bits)
    assert seen(content)[0, :, 0].tolist() == expected


def test_premultiplied_gray_is_shown_on_white() -> None:
    content = encoded(Image.merge("LA", (Image.new("L", (4, 4), 0), Image.new("L", (4, 4), 0))), "TIFF")
    extra_samples = struct.pack("<HHIH", 338, 3, 1, 2)
    assert extra_samples in content
    premultiplied = content.replace(extra_samples, struct.pack("<HHIH", 338, 3, 1, 1))
    assert Image.open(io.BytesIO(premultiplied)).mode == "La"
    assert (seen(premultiplied) == 255).all()


@pytest.mark.parametrize(
    "metadata",
    [
        chunk(b"zTXt", b"k\0\0" + zlib.compress(LONG)),
        chunk(b"iTXt", b"k\0\1\0\0\0" + zlib.compress(LONG)),
        chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(LONG)),
        chunk(b"iCCP", b"k\0\0" + zlib.compress(LONG)),
        chunk(b"tEXt", b"k\0" + LONG * 23),
        chunk(b"tEXt", b"Raw profile type exif\0" + LONG * 23),
        chunk(b"zTXt", b"k\0\1unknown compression"),
        chunk(b"tEXt", b"k\0value")[:-1] + b"\0",
        chunk(b"gAMA", b"\0"),
        chunk(b"eXIf", b"no EXIF at all"),
    ],
)
def test_metadata_makes_no_image_damaged(metadata: bytes) -> None:
    for place in (0, 1):
        chunks = [chunk(b"eXIf", exif(6)), chunk(b"IDAT", filled(RED, (8, 4)))]
        chunks.insert(place, metadata)
        if metadata[4:8] == b"eXIf":
            chunks.remove(chunk(b"eXIf", exif(6)))
        pixels = seen(png(*chunks, size=(8, 4)))
        assert (pixels == RED).all()
        # The orientation beside it still counts.
        assert pixels.shape == ((4, 8, 3) if metadata[4:8] == b"eXIf" else (8, 4, 3))


@pytest.mark.parametrize(
    ("kind", "value"), [(2, b"6\0\0\0"), (7, b"\6\0\0\0"), (1, b"\6\0\0\0"), (3, b"\x09\0\0\0"), (3, bytes(4))]
)
def test_an_orientation_that_is_none_is_ignored(kind: int, value: bytes) -> None:
    payload = b"Exif\0\0II*\0\x08\0\0\0\x01\0" + struct.pack("<HHI", 0x112, kind, 1) + value + bytes(4)
    jpeg = encoded(picture(1, (40, 20)), "JPEG")
    content = jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(payload) + 2) + payload + jpeg[2:]
    assert np.array_equal(seen(content), seen(jpeg))


def test_exif_data_that_cannot_be_read_is_ignored() -> None:
    assert seen(encoded(picture(1, (40, 20)), "WEBP", exif=b"Exif\0\0garbage")).shape == (20, 40, 3)


def test_pixels_that_are_damaged_stay_an_error() -> None:
    long = chunk(b"zTXt", b"k\0\0" + zlib.compress(LONG))
    for data in (filled(RED)[:-9], b"nothing"):
        with pytest.raises(RowError, match="image_decode"):
            seen(png(long, chunk(b"IDAT", data)))


def damaged(form: str, **options: Any) -> bytes:
    content = bytearray(encoded(picture(5), form, **options))
    content[len(content) // 2 : len(content) // 2 + 20] = bytes(range(20))
    return bytes(content)


def test_decoders_print_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    wrong = chunk(b"iCCP", b"k\0\0" + zlib.compress(b"no profile"))
    contents = [damaged("JPEG"), damaged("PNG"), damaged("TIFF", compression="tiff_lzw"), damaged("WEBP")]
    contents += [damaged("TIFF", compression="tiff_adobe_deflate"), png(wrong, DEFAULT)]
    for content in contents:
        try:
            decode_image(content)
        except RowError as error:
            assert error.kind == "image_decode"
    assert capfd.readouterr() == ("", "")


def test_other_c_code_still_prints(capfd: pytest.CaptureFixture[str]) -> None:
    import ctypes

    decode_image(encoded(picture(1)))
    ctypes.CDLL(None).perror(b"still heard")
    assert "still heard" in capfd.readouterr().err
