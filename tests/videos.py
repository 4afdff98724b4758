"""Videos for tests: seeded, of any size, length and rate, different from one another."""

import struct
import tempfile
from pathlib import Path

import cv2
import numpy as np
from pictures import picture

_CODECS = {"mp4": "mp4v", "avi": "MJPG", "mkv": "mp4v", "webm": "VP80", "flv": "FLV1", "mpg": "MPG2", "ts": "MPG2"}


def video(seed: int, frames: int = 12, fps: float = 6.0, size: tuple[int, int] = (64, 48), form: str = "mp4") -> bytes:
    """The bytes of a video whose picture moves and changes its colours."""
    first, last = (np.asarray(picture(seed + n, size))[:, :, ::-1].astype(float) for n in (0, 1000))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"video.{form}"
        code = cv2.VideoWriter_fourcc(*_CODECS[form])  # type: ignore[attr-defined]
        writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, code, fps, size)
        for number in range(frames):
            share = number / max(frames - 1, 1)
            frame = (first * (1 - share) + last * share).astype(np.uint8)
            writer.write(np.ascontiguousarray(np.roll(frame, number, axis=1)))
        writer.release()
        return path.read_bytes()


def turned(encoded: bytes) -> bytes:
    """An MP4 file that is to be shown turned by a quarter, as phones record it."""
    start = encoded.index(b"tkhd") + 44
    return encoded[:start] + struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30) + encoded[start + 36 :]


def index_first(encoded: bytes) -> bytes:
    """An MP4 file with its index before its frames, as files for streaming have it: cut off, it can still be opened."""
    boxes, position = {}, 0
    while position < len(encoded):
        size, kind = struct.unpack(">I4s", encoded[position : position + 8])
        boxes[kind], position = encoded[position : position + size], position + size
    index = bytearray(boxes.pop(b"moov"))
    start = index.index(b"stco") + 8
    for place in range(start + 4, start + 4 + 4 * int.from_bytes(index[start : start + 4]), 4):
        moved = int.from_bytes(index[place : place + 4]) + len(index)
        index[place : place + 4] = moved.to_bytes(4)
    return boxes.pop(b"ftyp") + bytes(index) + b"".join(boxes.values())


def with_frames_far_away(encoded: bytes) -> bytes:
    """An MP4 file whose index says that its frames are behind its end, further than FFmpeg can count."""
    start = encoded.index(b"stco") + 8
    return encoded[: start + 4] + b"\xff" * 4 + encoded[start + 8 :]


def as_stream(encoded: bytes) -> bytes:
    """A WebM file as a browser records it, which knows neither its size nor its length."""
    start = encoded.index(b"\x18\x53\x80\x67") + 4
    sized = encoded[:start] + b"\x01" + b"\xff" * 7 + encoded[start + 8 :]
    length = sized.index(b"\x44\x89")
    return sized[:length] + b"\xec\x89" + sized[length + 2 :]
