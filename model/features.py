"""The default mapper for precomputed image features."""

from typing import Any

import torch

from run_batch.model.declaration import RowError


def map_image_features(context: Any, items: list[torch.Tensor]) -> dict[str, list[torch.Tensor]]:
    """Precomputed features, as they are.

    Args:
        items: tensors of shape (features, hidden size), floating point; hidden size is that of the language model.

    Returns:
        `image_features`: the tensors, in the model's dtype.

    Raises:
        RowError: `features`, for a wrong shape or dtype, or for values that are not finite.
    """
    config = context.get_hf_config()
    hidden_size = config.get_text_config().hidden_size
    for item in items:
        if item.ndim != 2 or item.shape[1] != hidden_size or not item.is_floating_point():
            raise RowError(
                "features",
                f"image features have shape {tuple(item.shape)} and dtype {item.dtype}; "
                f"expected (number of features, {hidden_size}) and a floating point dtype",
            )
        if not torch.isfinite(item).all():
            raise RowError("features", "image features hold NaN or infinite values")
    return {"image_features": [item.to(context.model_config.dtype) for item in items]}
