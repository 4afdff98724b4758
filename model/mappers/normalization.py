"""How an image processor of transformers normalizes pixels, for the model's device to do it."""

from collections.abc import Mapping
from typing import Any

import torch

from run_batch.model.declaration import Normalization
from run_batch.model.mappers.processor_facts import UnknownSettings


def normalization_of(settings: Mapping[str, Any], dtype: torch.dtype) -> Normalization | None:
    """The normalization of an image processor on torchvision, which rescales and normalizes in one step.

    Args:
        settings: its means and deviations are in the unit of rescaled pixels.
        dtype: of the model.

    Returns:
        None where the model normalizes bytes itself.

    Raises:
        UnknownSettings: pixels are rescaled and not normalized, or the other way round.
    """
    if settings["do_rescale"] != settings["do_normalize"]:
        raise UnknownSettings("only one of do_rescale and do_normalize is true")
    if not settings["do_normalize"]:
        return None
    factor = 1.0 / settings["rescale_factor"]
    mean, std = ((torch.tensor(settings[name]) * factor).tolist() for name in ("image_mean", "image_std"))
    return Normalization(tuple(mean), tuple(std), 1.0, dtype)
