"""Reads the size of plain JPEG files without Pillow, which takes longer to open a file than to tell that it need not.

Plain is a file whose segments before its pixels are all of kinds that have no say in how it is decoded, and are as long
as Pillow has them. Of any other file, Pillow tells what it is.
"""

from dataclasses import dataclass

_SCAN, _QUANTIZATION = 0xDA, 0xDB
# Markers of tables for decoding, of restarts, and of comments.
_OTHERS = {0xC4, 0xDD, 0xFE}
# Markers of frames in which pixels are coded by Huffman's codes, all at once or progressively.
_FRAMES = {0xC0: False, 0xC2: True}
# Markers of metadata that Pillow reads: how it begins, and the least bytes that it has.
_METADATA = {0xE0: (b"JFIF", 7), 0xE2: (b"ICC_PROFILE\0", 14), 0xEE: (b"Adobe", 12)}


@dataclass(frozen=True, slots=True)
class PlainJpeg:
    """The frame of a plain JPEG file: gray or in three colors, of 8 bits each.

    Attributes:
        width, height: in pixels.
        is_progressive: whether all its coefficients are in memory while it is decoded.
    """

    width: int
    height: int
    is_progressive: bool


def plain_jpeg(encoded: bytes) -> PlainJpeg | None:
    """The frame of a file, upright as it is; None where it is no plain JPEG file, or is cut off."""
    if not encoded.startswith(b"\xff\xd8") or not encoded.endswith(b"\xff\xd9"):
        return None
    at, frame = 2, None
    while encoded[at : at + 1] == b"\xff":
        marker, length = encoded[at + 1], int.from_bytes(encoded[at + 2 : at + 4], "big")
        segment, at = encoded[at + 4 : at + 2 + length], at + 2 + length
        if len(segment) != length - 2:
            return None
        if marker == _SCAN:
            return frame
        if marker in _FRAMES and frame is None:
            frame = _frame(segment, _FRAMES[marker])
            if frame is None:
                return None
        elif not _is_plain(marker, segment):
            return None
    return None


def _frame(segment: bytes, is_progressive: bool) -> PlainJpeg | None:
    height, width = (int.from_bytes(segment[at : at + 2], "big") for at in (1, 3))
    colors = segment[5:6]
    if segment[:1] != b"\x08" or colors not in (b"\x01", b"\x03") or len(segment) != 6 + 3 * colors[0]:
        return None
    return PlainJpeg(width, height, is_progressive) if width and height else None


def _is_plain(marker: int, segment: bytes) -> bool:
    if marker == _QUANTIZATION:
        at = 0
        while at < len(segment):
            at += 65 if segment[at] < 16 else 129
        return at == len(segment)
    if marker in _METADATA:
        name, least = _METADATA[marker]
        return segment.startswith(name) and len(segment) >= least
    return marker in _OTHERS
