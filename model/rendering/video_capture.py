"""OpenCV's captures as vLLM's loaders use them: for damaged files, for many processes, and checked when they rewind."""

import contextlib
import io
from collections.abc import Iterator
from typing import Any

import cv2
from vllm.multimodal.video_decoders import opencv

# Between two times of one frame, in milliseconds.
_SAME_TIME = 1.0


class _Stream(io.BytesIO):
    """The bytes of a file, with seeks that do not raise: OpenCV ends the process then."""

    def seek(self, position: int, whence: int = 0, /) -> int:
        """Go to a position; -1 where a damaged file leads to one that there is not."""
        try:
            return super().seek(position, whence)
        except (ValueError, OverflowError):
            return -1


class RewoundCapture:
    """A capture that a loader has rewound, and that knows with which frame it begins then.

    vLLM's loaders seek to the end of a file to count its frames, and back. In some containers OpenCV does not come back
    to the first frame.
    """

    def __init__(self, capture: cv2.VideoCapture) -> None:
        self._capture = capture
        self._first: float | None = None

    def grab(self) -> bool:
        """Go to the next frame; False if there is none."""
        grabbed = self._capture.grab()
        if grabbed and self._first is None:
            self._first = self._capture.get(cv2.CAP_PROP_POS_MSEC)
        return grabbed

    def begins_as(self, encoded: bytes) -> bool:
        """Whether the first frame was that of the file, by their times."""
        if self._first is None:
            return True
        fresh = RewoundCapture(open_capture(encoded))
        fresh.grab()
        return fresh._first is not None and abs(fresh._first - self._first) < _SAME_TIME

    def __getattr__(self, name: str) -> Any:
        return getattr(self._capture, name)


def open_capture(encoded: bytes) -> cv2.VideoCapture:
    """Open a file as vLLM does, by one thread: with one for each core, each of many processes would have as many.

    Raises:
        ValueError: it cannot be opened.
    """
    backend, options = opencv.OpenCVVideoBackendMixin.get_cv2_video_api(), [cv2.CAP_PROP_N_THREADS, 1]
    capture = cv2.VideoCapture(_Stream(encoded), backend, options)  # type: ignore[call-overload]
    if not capture.isOpened():
        raise ValueError("its stream of frames cannot be opened")
    return capture


@contextlib.contextmanager
def safe_captures() -> Iterator[None]:
    """Have vLLM's loaders open captures by `open_capture`."""
    backend = opencv.OpenCVVideoBackendMixin
    kept = vars(backend)["open_video_capture"]
    backend.open_video_capture = staticmethod(open_capture)  # type: ignore[method-assign,assignment]
    try:
        yield
    finally:
        backend.open_video_capture = kept
