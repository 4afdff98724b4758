"""The containers of video files: which are taken, and whether a file is whole by what its container says of itself.

FFmpeg takes what is there of a file that is cut off for a shorter video.
"""

import re
from collections.abc import Callable, Sequence
from typing import TypeAlias

from run_batch.model.declaration import RowError

# A position in a file: behind the end of its bytes where it is cut off, none behind that where the container does not
# tell.
_End: TypeAlias = Callable[[bytes], int]
_SHOWN_BYTES = 12
_UNKNOWN = 0xFFFFFFFF
_SEGMENT = b"\x18\x53\x80\x67"
_FLV_TAGS = (8, 9, 18)
_TS_PACKET = 188


def check_container(encoded: bytes) -> None:
    """Check by its first bytes that a file is a video, and that it is whole as far as its container tells.

    Raises:
        RowError: `video_empty` or `video_decode`.
    """
    if not encoded:
        raise RowError("video_empty", "the video has no bytes")
    ends = [end for beginning, end in _CONTAINERS if re.match(beginning, encoded, re.DOTALL)]
    if not ends:
        raise RowError(
            "video_decode",
            f"no video that is known by its first bytes: {encoded[:_SHOWN_BYTES]!r}; known are MP4, MOV, Matroska, "
            "WebM, AVI, FLV, Ogg, ASF, MPEG and GIF",
        )
    size = 0 if ends[0] is None else ends[0](encoded)
    if size > len(encoded):
        raise RowError("video_decode", f"the file is cut off: it has {len(encoded):,} of {size:,} bytes or more")


def _boxes_end(encoded: bytes) -> int:
    """Of MP4 and MOV, whose last box has a size."""
    position = 0
    while position + 8 <= len(encoded):
        size = int.from_bytes(encoded[position : position + 4])
        if size == 1:
            size = int.from_bytes(encoded[position + 8 : position + 16])
        if size < 8:  # it goes on to the end of the file, or it is no box
            return len(encoded)
        position += size
    return position


def _riff_end(encoded: bytes) -> int:
    """Of AVI, whose first chunk has a size."""
    size = int.from_bytes(encoded[4:8], "little")
    return 0 if size == _UNKNOWN else size + 8


def _segment_end(encoded: bytes) -> int:
    """Of Matroska and WebM, whose segment has a size unless it was written as a stream."""
    position = 0
    while position + 12 <= len(encoded) and encoded[position]:
        is_segment = encoded.startswith(_SEGMENT, position)
        position += 9 - encoded[position].bit_length()  # behind the element's name
        length = 9 - encoded[position].bit_length()
        unknown = (1 << 7 * length) - 1
        size = int.from_bytes(encoded[position : position + length]) & unknown
        if length > 8 or size == unknown:
            return 0
        position += length + size
        if is_segment:
            break
    return position


def _flv_end(encoded: bytes) -> int:
    """Of FLV, whose tags have sizes, each behind the size of the one before it."""
    position = int.from_bytes(encoded[5:9])
    while position + 4 < len(encoded):
        if encoded[position + 4] not in _FLV_TAGS:
            return 0
        position += 15 + int.from_bytes(encoded[position + 5 : position + 8])
    return position


def _ogg_end(encoded: bytes) -> int:
    """Of Ogg, whose pages have sizes."""
    position = 0
    while position + 27 <= len(encoded) and encoded.startswith(b"OggS", position):
        segments = encoded[position + 27 : position + 27 + encoded[position + 26]]
        position += 27 + encoded[position + 26] + sum(segments)
    return position


def _program_stream_end(encoded: bytes) -> int:
    """Of an MPEG program stream, whose packets have sizes."""
    position = 0
    while position + 14 <= len(encoded) and encoded.startswith(b"\0\0\1", position):
        code = encoded[position + 3]
        if code < 0xBA:
            return 0
        if code > 0xBA:
            position += 6 + int.from_bytes(encoded[position + 4 : position + 6])
        else:  # a pack, of MPEG-1 or MPEG-2
            position += 12 if encoded[position + 4] >> 4 == 2 else 14 + (encoded[position + 13] & 7)
    return position


def _transport_stream_end(encoded: bytes) -> int:
    """Of an MPEG transport stream, whose packets have one size."""
    return -(-len(encoded) // _TS_PACKET) * _TS_PACKET


def _gif_end(encoded: bytes) -> int:
    """Of GIF, whose blocks have sizes."""
    if len(encoded) < 13:
        return 13
    position = 13 + _color_table(encoded[10])
    while encoded[position : position + 1] in (b"!", b","):
        is_image = encoded[position] == ord(",")
        flags = encoded[position + 9 : position + 10] or b"\0"
        position += 11 + _color_table(flags[0]) if is_image else 2
        while position < len(encoded) and encoded[position]:
            position += encoded[position] + 1
        position += 1
    return position


def _color_table(flags: int) -> int:
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


# How files begin that are one video each, and where such a file ends by its container. FFmpeg opens more, playlists
# among them, which make it read other files and URLs.
_CONTAINERS: Sequence[tuple[bytes, _End | None]] = (
    (rb".{4}(ftyp|moov|mdat|wide|free|skip)", _boxes_end),  # MP4, MOV
    (rb"RIFF.{4}AVI ", _riff_end),
    (rb"\x1aE\xdf\xa3", _segment_end),  # Matroska, WebM
    (rb"FLV", _flv_end),
    (rb"OggS", _ogg_end),
    (rb"0&\xb2u\x8ef\xcf\x11", None),  # ASF, WMV
    (rb"\0\0\x01\xba", _program_stream_end),  # MPEG program stream
    (rb"\0\0\x01\xb3", None),  # MPEG video
    (rb"\x47.{187}\x47", _transport_stream_end),  # MPEG transport stream
    (rb"GIF8", _gif_end),
)
