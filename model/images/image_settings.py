"""The settings by which a model's images are mapped: those of the checkpoint, with the job's own over them."""

from collections.abc import Mapping
from typing import Any

# transformers groups a processor's arguments by these; only the first has to do with images.
_SCOPE = "images_kwargs"
_OTHER_SCOPES = ("text_kwargs", "videos_kwargs", "audio_kwargs", "common_kwargs")


def image_settings(context: Any) -> dict[str, Any]:
    """The checkpoint's image processor config, with the job's `engine.mm_processor_kwargs` over it.

    Tables, such as `size`, are merged key by key. Where vLLM's model class normalizes pixels on its device, which is
    `engine.mm_device_do_normalize`, the keys `do_rescale` and `do_normalize` are false, as they are for vLLM's own
    processors. Keys that neither the checkpoint nor the job sets are missing: their defaults are the mapper's.

    Args:
        context: what a mapper takes, vLLM's InputProcessingContext.
    """
    config = context.get_hf_image_processor_config()
    given = dict(context.get_mm_config().merge_mm_processor_kwargs({}))
    scoped = given.pop(_SCOPE, None) or {}
    flat = {key: value for key, value in given.items() if key not in _OTHER_SCOPES}
    return _merged(_merged(config.get("image_processor", config), flat), scoped)


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        other = merged.get(key)
        both_tables = isinstance(value, Mapping) and isinstance(other, Mapping)
        merged[key] = {**other, **value} if both_tables else value  # type: ignore[dict-item]
    return merged
