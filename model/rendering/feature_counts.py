"""Checks that a model gives an image as many features as its input processor gives it placeholder tokens.

vLLM replaces placeholders by features without counting them per image: where there are too few placeholders, it
silently drops the other features. So each image's number of placeholders is passed along with its tensors, on the CPU,
and compared with what the model's `embed_multimodal` returns. vLLM calls that on the dummy data when it profiles
memory at start-up, where most wrong declarations are found.
"""

import functools
from typing import Any

import torch

from run_batch.model.declaration import DeclarationError

FEATURE_COUNTS = "run_batch_feature_counts"


def install_feature_count_check(model_cls: type) -> None:
    """Wrap `model_cls.embed_multimodal` in the check, unless it inherits a wrapped one."""
    embed = getattr(model_cls, "embed_multimodal", None)
    if embed is None or counts_features(model_cls):
        return

    @functools.wraps(embed)
    def checked(self: Any, **kwargs: Any) -> Any:
        counts = kwargs.pop(FEATURE_COUNTS, None)
        features = embed(self, **kwargs)
        if counts is not None:
            check_feature_counts(type(self).__name__, counts, features)
        return features

    checked.checks_feature_counts = True  # type: ignore[attr-defined]
    model_cls.embed_multimodal = checked  # type: ignore[attr-defined]


def counts_features(model_cls: type) -> bool:
    """Whether a model's class has the check, and so takes `FEATURE_COUNTS`."""
    return hasattr(getattr(model_cls, "embed_multimodal", None), "checks_feature_counts")


def check_feature_counts(model: str, counts: torch.Tensor | list[torch.Tensor], features: Any) -> None:
    """Compare the placeholder tokens of each image with its features.

    Args:
        counts: int64, one for each image.
        features: tensors of shape (features, hidden size), one for each image.

    Raises:
        DeclarationError: they differ; the message gives both numbers.
    """
    expected, found = [int(count) for count in counts], [len(image) for image in features]
    if len(found) != len(expected):
        raise DeclarationError(
            f"{model}.embed_multimodal took {len(expected)} images and gave features of {len(found)}"
        )
    for count, given in zip(expected, found, strict=True):
        if count != given:
            raise DeclarationError(
                f"{model}'s input processor gives an image {count} placeholder tokens for features, and its "
                f"embed_multimodal {given} features; they must agree"
            )
