"""JPEG files whose size is read without Pillow are decoded, or refused, as where Pillow opens every file."""

import io
import random
from collections.abc import Iterator

import numpy as np
import pytest
from pictures import encoded, picture
from PIL import ExifTags, Image

from run_batch.model.declaration import RowError
from run_batch.model.images import decode, image_memory
from run_batch.model.images.decode import Size, decode_image
from run_batch.model.images.jpeg import PlainJpeg, plain_jpeg

JFIF, ADOBE, ICC = b"JFIF\0\1\1\0\0\1\0\1\0\0", b"Adobe\0\x64\0\0\0\0", b"ICC_PROFILE\0\1\1"
EXIF = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
XMP = b"http://ns.adobe.com/xap/1.0/\0<x tiff:Orientation='6'/>"


def segment(marker: int, body: bytes, length: int | None = None) -> bytes:
    """A segment that says that it is so long."""
    return bytes([0xFF, marker]) + (len(body) + 2 if length is None else length).to_bytes(2, "big") + body


def frame(marker: int = 0xC0, bits: int = 8, size: Size = (16, 16), colors: int = 3, more: int = 0) -> bytes:
    height, width = size
    sides = height.to_bytes(2, "big") + width.to_bytes(2, "big")
    return segment(marker, bytes([bits]) + sides + bytes([colors]) + bytes(3 * colors + more))


UNUSUAL_FRAMES = [
    frame(bits=12),
    frame(colors=4),
    frame(colors=2),
    frame(size=(0, 16)),
    frame(size=(16, 0)),
    frame(more=1),
]
# What is put between the segments of a file.
ODD = [
    *(segment(0xE0, body) for body in (JFIF, JFIF[:6], JFIF[:8], b"JFXX\0\x10", b"")),
    *(segment(0xEE, ADOBE + bytes([transform])) for transform in range(4)),
    *(segment(0xEE, body) for body in (ADOBE, ADOBE[:6], b"x")),
    *(segment(0xE2, body) for body in (ICC, ICC[:13], b"MPF\0" + EXIF[6:], b"FPXR\0")),
    *(segment(0xE1, body) for body in (EXIF, EXIF[:12], XMP, b"")),
    *(segment(0xDB, bytes([kind]) + bytes(more)) for kind in (0, 3, 16) for more in (63, 64, 128, 129)),
    *(frame(marker) for marker in (0xC0, 0xC1, 0xC2, 0xC3, 0xC9, 0xCA, 0xCF)),
    *UNUSUAL_FRAMES,
    *(segment(marker, bytes(2)) for marker in (0xC4, 0xCC, 0xDC, 0xDD, 0xFE, 0xED, 0xF0, 0x01)),
    *(segment(0xFE, bytes(4), length) for length in (0, 1, 2, 3, 9, 0xFFFF)),
    *(b"\xff", b"\xff\xff\xff", b"junk", b"\xff\x00", b"\xff\xd0", b"\xff\xd8", b"\xff\xd9"),
]


def files() -> Iterator[bytes]:
    """JPEG files that Pillow writes."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    for mode in ("RGB", "L", "CMYK"):
        image = picture(1, (40, 24)).convert(mode)
        yield from (encoded(image, "JPEG", quality=quality) for quality in (20, 95))
        for settings in ({"progressive": True}, {"exif": exif}, {"icc_profile": b"profile"}, {"comment": b"it"}):
            yield encoded(image, "JPEG", **settings)
        yield from (encoded(image, "JPEG", restart_marker_blocks=1, subsampling=s) for s in (0, 2))
    several = io.BytesIO()
    image.convert("RGB").save(several, "MPO", save_all=True, append_images=[image.convert("RGB")])
    yield several.getvalue()


def segments(jpeg: bytes) -> tuple[list[bytes], bytes]:
    """Those before a file's pixels, and the rest."""
    found, at = [], 2
    while not found or found[-1][1] != 0xDA:
        end = at + 2 + int.from_bytes(jpeg[at + 2 : at + 4], "big")
        found, at = [*found, jpeg[at:end]], end
    return found, jpeg[at:]


def changed(jpeg: bytes, dice: random.Random) -> bytes:
    """A file with odd segments, others left out or twice there, damaged, or cut off."""
    parts, rest = segments(jpeg)
    for _ in range(dice.choice((1, 1, 2))):
        place = dice.randrange(len(parts))
        change: list[list[bytes]] = [[dice.choice(ODD), parts[place]], [parts[place]] * 2, [dice.choice(parts)], []]
        parts[place : place + 1] = dice.choices(change, (6, 1, 1, 1))[0]
    whole = bytearray(b"\xff\xd8" + b"".join(parts) + rest)
    for _ in range(dice.choice((0, 0, 0, 1, 4))):
        whole[dice.randrange(len(whole))] = dice.choice((0, 1, 8, 16, 255, dice.randrange(256)))
    end = dice.choice((len(whole), len(whole), len(whole), dice.randrange(len(whole))))
    return bytes(whole[:end]) + dice.choice((b"", b"", b"\xff\xd9", b"\0", b"more\xff\xd9"))


def decoded(jpeg: bytes, needed_size: bool) -> tuple[str, int]:
    """What a file gives, or its error; and the memory that it asks for."""
    image_memory.drop_decoded()
    try:
        image = decode_image(jpeg, (lambda size: (size[0] // 8, size[1] // 8)) if needed_size else None)
        found = f"{image.width}, {image.height}, {image.pixels.shape}, {image.pixels.tobytes().hex()}"
    except RowError as error:
        found = str(error)
    return found, image_memory._memory.decoded


def test_odd_and_damaged_files_are_judged_as_pillow_judges_them(monkeypatch: pytest.MonkeyPatch) -> None:
    dice, plain = random.Random(3), 0
    for jpeg in list(files()) * 2:
        for variant in [jpeg, *(changed(jpeg, dice) for _ in range(150))]:
            header = plain_jpeg(variant)
            if header is None or header.width * header.height > 1_000_000:
                continue
            plain, scaled = plain + 1, plain % 3 == 0
            found = decoded(variant, scaled)
            with monkeypatch.context() as context:
                context.setattr(decode, "plain_jpeg", lambda _: None)
                assert found == decoded(variant, scaled), variant
    assert plain > 500


def test_usual_files_are_plain() -> None:
    image = picture(1, (40, 24))
    for settings in ({}, {"progressive": True}, {"icc_profile": b"profile"}, {"comment": b"it"}, {"quality": 100}):
        for mode in ("RGB", "L"):
            jpeg = encoded(image.convert(mode), "JPEG", **settings)
            assert plain_jpeg(jpeg) == PlainJpeg(40, 24, "progressive" in settings)


@pytest.mark.parametrize("unusual", [*UNUSUAL_FRAMES, frame() * 2, frame(0xC3), frame(0xC9), b""])
def test_files_of_unusual_frames_are_not_plain(unusual: bytes) -> None:
    def file(its_frame: bytes) -> bytes:
        return b"\xff\xd8" + its_frame + segment(0xDA, bytes(10)) + b"\xff\xd9"

    assert plain_jpeg(file(unusual)) is None and plain_jpeg(file(frame())) == PlainJpeg(16, 16, False)


def test_files_are_refused_by_the_limit_that_a_plugin_gives_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    jpeg = encoded(picture(1, (40, 24)), "JPEG")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40 * 24 // 2 - 1)
    with pytest.raises(RowError, match="image_too_large"):
        decode_image(jpeg)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert np.array_equal(decode_image(jpeg).pixels, np.asarray(Image.open(io.BytesIO(jpeg))))
