"""Refuses keys of `engine.media_io_kwargs` that do nothing, or have values that vLLM's loaders of videos fail on.

Needs no vLLM: a job is refused before that is imported. What a certain loader does not read is refused with the model.
"""

from collections.abc import Callable, Mapping
from typing import Any

_KEY = "engine.media_io_kwargs"


def _is_count(value: Any) -> bool:
    return type(value) is int and value > 0


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and 0 < value < float("inf")


# What vLLM's loaders read of `engine.media_io_kwargs.video` on a CPU: whether a value fits, and what does, for people.
_VIDEO: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "num_frames": (lambda value: _is_count(value) or value == -1, "a whole number from 1 on, or -1 for all frames"),
    "fps": (_is_number, "a number of frames a second, above 0"),
    "min_frames": (_is_count, "a whole number from 1 on"),
    "max_frames": (_is_count, "a whole number from 1 on"),
    "max_duration": (_is_number, "a number of seconds, above 0"),
    "frame_recovery": (lambda value: type(value) is bool, "true or false"),
    "video_backend": (lambda value: isinstance(value, str), "the name of one of vLLM's loaders"),
}


def find_refused_media(given: Any, has_videos: bool) -> str | None:
    """What is wrong with `engine.media_io_kwargs`; None for nothing.

    Args:
        has_videos: rows have videos, or may have some in messages.
    """
    if given is None:
        return None
    if not isinstance(given, Mapping) or not all(isinstance(value, Mapping) for value in given.values()):
        return f"{_KEY} = {given!r}: expected a table [{_KEY}.video]"
    for modality in given:
        if modality != "video":
            return f"{_KEY}.{modality} cannot be set: run-batch reads the images itself; only {_KEY}.video can"
    if not has_videos:
        return f"{_KEY} does nothing without videos: name their column in input.video_column, or remove it"
    for name, value in given.get("video", {}).items():
        if name not in _VIDEO:
            return f"{_KEY}.video.{name} cannot be set: run-batch takes {', '.join(_VIDEO)}"
        fits, accepted = _VIDEO[name]
        if not fits(value):
            return f"{_KEY}.video.{name} = {value!r}: expected {accepted}"
    return None
