"""Parts of chat messages as people write them, brought to one form: texts, images and videos.

What cannot be brought to that form is an error of its row that names the key or type.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from run_batch.model.declaration import RowError
from run_batch.model.prompts.tokenizer import Piece

TEXT_TYPES = ("text", "input_text", "output_text")
IMAGE_TYPES = ("image", "image_url", "input_image")
VIDEO_TYPES = ("video", "video_url")
# Keys by which a part holds its image or its video, and those of them that tell which of the two it is.
_IMAGE_KEYS = ("image", "image_url", "url", "base64", "data", "source")
_VIDEO_KEYS = ("video", "video_url", "url")
OWN_KEYS = {"image": ("image", "image_url"), "video": ("video", "video_url")}
# What a part of type image may have beside its image, or beside nothing if it stands for one of the row.
_KEYS_OF_NO_IMAGE = {"type", "index", "text", "detail", "cache_control"}
_KEYS_OF_VIDEOS = {*_KEYS_OF_NO_IMAGE, *_VIDEO_KEYS, "bytes", "path"}


@dataclass(frozen=True, slots=True)
class MessageImage:
    """An image in a message.

    Attributes:
        cell: the image, where the message itself holds it: bytes, text or a struct, as in a column of images.
        index: which of the row's other images it is, from 0; None for the next one.
    """

    cell: Any = None
    index: int | None = None


@dataclass(frozen=True, slots=True)
class MessageVideo:
    """A video in a message.

    Attributes:
        cell: the video, where the message itself holds it, as in a column of videos.
        index: which of the row's other videos it is, from 0; None for the next one.
    """

    cell: Any = None
    index: int | None = None


Part: TypeAlias = Sequence[Piece | MessageImage | MessageVideo]


def refusal(message: str) -> RowError:
    """The error of a row whose messages have none of the forms that are taken."""
    return RowError("prompt_messages", message)


def parse_part(part: Any) -> Part:
    """Bring a part of a message to one form.

    Raises:
        RowError: `prompt_messages`.
    """
    if isinstance(part, str):
        return [Piece(part, trusted=False)]
    if not isinstance(part, Mapping):
        raise refusal(f"a part of a message cannot be a {type(part).__name__}")
    given = {key: item for key, item in part.items() if item is not None}
    images, videos, text = _held(given, _IMAGE_KEYS), _held(given, _VIDEO_KEYS), given.get("text")
    of_video = [key for key in videos if key in OWN_KEYS["video"]]
    medium, held = ("video", videos) if of_video else ("image", images)
    kind = given.get("type", "text" if "text" in given and not held else medium if held else None)
    if text and held:
        raise refusal(f"a part holds both a text and its {medium} ({held[0]}): write a part for each")
    if kind in TEXT_TYPES:
        if not isinstance(text, str) or held:
            raise refusal(f"a part of type {kind} has no text")
        return [Piece(text, trusted=False)]
    if kind in (*IMAGE_TYPES, *VIDEO_TYPES) and text:
        raise refusal(f"a part of type {kind} holds a text: write a part for each")
    if kind in IMAGE_TYPES:
        return [_image(kind, given, [*images, *of_video])]
    if kind in VIDEO_TYPES:
        return [_video(kind, given, videos)]
    raise refusal(f"a part of a message has type {kind!r}; expected text, image or video")


def _held(part: Mapping[str, Any], keys: Sequence[str]) -> list[str]:
    """Those of some keys by which a part holds an image or a video."""
    held = [key for key in keys if holds_something(part.get(key))]
    if holds_something(part.get("bytes")) or holds_something(part.get("path")):
        held.append("bytes and path")
    return held


def holds_something(content: Any) -> bool:
    """Whether the value of a key holds anything; writers of tables fill keys up that a part does not have."""
    if isinstance(content, Mapping):
        return any(item is not None and item != "" for item in content.values())
    return content is not None and content != ""


def _image(kind: str, part: Mapping[str, Any], held: Sequence[str]) -> MessageImage:
    """The image of a part; without any content, it is one of the row's."""
    if len(held) > 1:
        raise refusal(f"a part of type {kind} holds its image twice: {', '.join(held)}")
    if held and held[0] in OWN_KEYS["video"]:
        raise refusal(f"a part of type {kind} holds a video ({held[0]}): its type is video")
    if held:
        return MessageImage(_content(part, held[0]))
    if kind != "image":
        raise refusal(f"a part of type {kind} has no image")
    others = [key for key, item in part.items() if key not in _KEYS_OF_NO_IMAGE and holds_something(item)]
    if others:
        raise refusal(f"a part of type image has the key {others[0]!r}, and no image that is known")
    return MessageImage(index=_index(part.get("index"), "image"))


def _video(kind: str, part: Mapping[str, Any], held: Sequence[str]) -> MessageVideo:
    """The video of a part; without any content, it is one of the row's."""
    if len(held) > 1:
        raise refusal(f"a part of type {kind} holds its video twice: {', '.join(held)}")
    beside = part[held[0]] if held and isinstance(part.get(held[0]), Mapping) else {}
    others = [
        key for key, item in (*part.items(), *beside.items()) if key not in _KEYS_OF_VIDEOS and holds_something(item)
    ]
    if others:
        raise refusal(
            f"a part of type {kind} has the key {others[0]!r}, which is not taken: a video is in video, video_url, "
            "url, path or bytes, and engine.media_io_kwargs.video samples the frames of all rows"
        )
    if not held:
        if kind != "video":
            raise refusal(f"a part of type {kind} has no video")
        return MessageVideo(index=_index(part.get("index"), "video"))
    content = _content(part, held[0])
    if isinstance(content, Sequence) and not isinstance(content, str | bytes):
        raise refusal(
            f"a part of type {kind} holds a list: frames of a video as images are not taken, write a video file"
        )
    return MessageVideo(content)


def _content(part: Mapping[str, Any], key: str) -> Any:
    if key == "bytes and path":
        return {"bytes": part.get("bytes"), "path": part.get("path")}
    return _unwrap(part[key])


def _index(index: Any, kind: str) -> int | None:
    """Which image or video a part is; data frames make floating point numbers of integers beside nulls, NaN of null."""
    if index is None or index != index:
        return None
    is_whole = type(index) is int or (isinstance(index, float) and index.is_integer())
    if not is_whole or index < 0:
        raise refusal(f"a part of type {kind} has index {str(index)[:40]}; expected a whole number from 0 on")
    return int(index)


def _unwrap(content: Any) -> Any:
    """The image in an OpenAI `{"url": ...}` or an Anthropic `{"type": "base64", "data": ...}`; others as they are."""
    if not isinstance(content, Mapping):
        return content
    given = {key: item for key, item in content.items() if item is not None}
    return given.get("url", given.get("data", dict(content)))
