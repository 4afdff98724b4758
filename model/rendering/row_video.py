"""A video as a row brings it: the bytes of a file."""

from dataclasses import dataclass

from blake3 import blake3

from run_batch.model.declaration import RowError

# The first bytes of files that are one video each, at their offset. FFmpeg opens more: also playlists, which make it
# read other files and URLs.
_CONTAINERS = (
    *((4, kind) for kind in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")),  # MP4, MOV
    (8, b"AVI "),
    (0, b"\x1aE\xdf\xa3"),  # Matroska, WebM
    (0, b"FLV"),
    (0, b"OggS"),
    (0, b"0&\xb2u\x8ef\xcf\x11"),  # ASF, WMV
    (0, b"\x00\x00\x01\xba"),  # MPEG program stream
    (0, b"\x00\x00\x01\xb3"),  # MPEG video
    (188, b"\x47"),  # MPEG transport stream
    (0, b"GIF8"),
)
_BOXES = 6
_UNKNOWN = 0xFFFFFFFF
_SHOWN_BYTES = 12


@dataclass(frozen=True, slots=True)
class EncodedVideo:
    """The bytes of a video file, before frames are decoded.

    Attributes:
        digest: BLAKE3 digest of the bytes, by which a video that comes again is recognized; never that of an image.
    """

    encoded: bytes
    digest: bytes

    @classmethod
    def of(cls, encoded: bytes) -> "EncodedVideo":
        """The video in the bytes of a file."""
        return cls(encoded, blake3(encoded, derive_key_context="run-batch video").digest())


def check_container(encoded: bytes) -> None:
    """Check by its first bytes that a file is a video, and that it is whole as far as its container tells.

    FFmpeg takes a file that is cut off for a shorter video.

    Raises:
        RowError: `video_empty` or `video_decode`.
    """
    if not encoded:
        raise RowError("video_empty", "the video has no bytes")
    found = [encoded[offset : offset + len(magic)] == magic for offset, magic in _CONTAINERS]
    if not any(found):
        raise RowError(
            "video_decode",
            f"no video that is known by its first bytes: {encoded[:_SHOWN_BYTES]!r}; known are MP4, MOV, Matroska, "
            "WebM, AVI, FLV, Ogg, ASF, MPEG and GIF",
        )
    size = _boxes_end(encoded) if any(found[:_BOXES]) else _riff_end(encoded) if found[_BOXES] else 0
    if size > len(encoded):
        raise RowError("video_decode", f"the file is cut off: it has {len(encoded):,} of {size:,} bytes")


def _boxes_end(encoded: bytes) -> int:
    """Where the last box of an MP4 file ends, by its size."""
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
    """Where an AVI file's first chunk ends, by its size; 0 if that is not known."""
    size = int.from_bytes(encoded[4:8], "little")
    return 0 if size == _UNKNOWN else size + 8
