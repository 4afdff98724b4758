"""The error of a row whose image or video cannot be read."""

from collections.abc import Callable, Mapping


class MediaError(Exception):
    """An image or a video of this row cannot be read; the job goes on without the row.

    Attributes:
        kind: stable name that users filter on, one of docs/errors.md.
        message: what is wrong with this row, without the kind.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(f"{kind}: {message}")
        self.kind, self.message = kind, message

    def of_video(self) -> "MediaError":
        """The same error, found while a video was read: its kind is that of videos."""
        made = _OF_VIDEOS.get(self.kind)
        return self if made is None else made(self.message)


_OF_VIDEOS: Mapping[str, Callable[[str], MediaError]] = {
    "image_decode": lambda message: MediaError("video_decode", message),
    "image_form": lambda message: MediaError("video_form", message),
    "image_not_found": lambda message: MediaError("video_not_found", message),
    "image_null": lambda message: MediaError("video_null", message),
    "image_too_large": lambda message: MediaError("video_too_large", message),
    "image_unreadable": lambda message: MediaError("video_unreadable", message),
}
