"""Takes PNG files apart into chunks, and makes simpler PNG files of them.

Pillow refuses a file for faults in chunks that do not matter for its pixels; it and OpenCV show an animation's default
image even where that is not part of the animation.
"""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PIXELS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
# Keywords of texts that may hold an orientation.
_ORIENTATION_KEYWORDS = (b"Raw profile type ", b"XML:com.adobe.xmp\0")
# Of a text, decompressed; Pillow takes no longer ones.
_TEXT_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class _Chunk:
    """One chunk; `whole` is it all, with length, name, data and checksum."""

    name: bytes
    data: bytes
    whole: bytes

    @property
    def is_intact(self) -> bool:
        return zlib.crc32(self.name + self.data) == int.from_bytes(self.whole[-4:], "big")


@dataclass(frozen=True, slots=True)
class AnimationFrame:
    """The first frame of an animation.

    Attributes:
        png: a PNG file of the frame alone.
        left, top: its place on the animation's canvas, in pixels.
    """

    png: bytes
    left: int
    top: int


def without_metadata(png: bytes) -> bytes | None:
    """The same image without profiles, long texts, damaged metadata and animation; None where it has none of these."""
    if not png.startswith(SIGNATURE):
        return None
    kept = [chunk.whole for chunk in _chunks(png) if chunk.name in _PIXELS or _may_hold_orientation(chunk)]
    simple = b"".join((SIGNATURE, *kept))
    return simple if len(simple) < len(png) else None


def first_frame(png: bytes) -> AnimationFrame | None:
    """The first frame of an animation that its default image is no part of; None where it is missing or damaged."""
    shared: list[_Chunk] = []
    header, control, data = b"", b"", b""
    for chunk in _chunks(png):
        if chunk.name == b"IHDR":
            header = chunk.data
        elif chunk.name in (b"PLTE", b"tRNS"):
            shared.append(chunk)
        elif chunk.name == b"fcTL":
            if control:
                break
            control = chunk.data if chunk.is_intact else b""
        elif chunk.name == b"fdAT" and control and chunk.is_intact:
            data += chunk.data[4:]
    if len(header) != 13 or len(control) != 26 or not data:
        return None
    width, height, left, top = struct.unpack_from(">4I", control, 4)
    canvas_width, canvas_height = struct.unpack_from(">2I", header)
    if left + width > canvas_width or top + height > canvas_height:
        return None
    own_header = struct.pack(">2I", width, height) + header[8:]
    parts = [_encoded(b"IHDR", own_header), *(chunk.whole for chunk in shared), _encoded(b"IDAT", data)]
    return AnimationFrame(b"".join((SIGNATURE, *parts, _encoded(b"IEND", b""))), left, top)


def _chunks(png: bytes) -> Iterator[_Chunk]:
    """The chunks up to IEND; the last one may be cut off."""
    start = len(SIGNATURE)
    while start < len(png):
        end = start + 12 + int.from_bytes(png[start : start + 4], "big")
        chunk = _Chunk(png[start + 4 : start + 8], png[start + 8 : end - 4], png[start:end])
        yield chunk
        if chunk.name == b"IEND":
            return
        start = end


def _encoded(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def _may_hold_orientation(chunk: _Chunk) -> bool:
    if not chunk.is_intact:
        return False
    return chunk.name == b"eXIf" or (chunk.data.startswith(_ORIENTATION_KEYWORDS) and _is_short_text(chunk))


def _is_short_text(chunk: _Chunk) -> bool:
    """Whether a text takes no more than `_TEXT_BYTES`, also when it is decompressed."""
    _, _, text = chunk.data.partition(b"\0")
    if chunk.name == b"iTXt":
        is_compressed, language_and_keyword = text[:1] == b"\1", text[2:]
        text = language_and_keyword.split(b"\0", 2)[-1]
    else:
        is_compressed, text = chunk.name == b"zTXt", text[1:] if chunk.name == b"zTXt" else text
    if is_compressed:
        try:
            text = zlib.decompressobj().decompress(text, _TEXT_BYTES + 1)
        except zlib.error:
            return False
    return len(text) <= _TEXT_BYTES
