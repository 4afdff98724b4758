"""Checks that input mappers give finite numbers; where they do not, tells whether an image or the mapper is to blame.

A mapper that gives NaN for every image is wrong, and stops the job; one that gives it for some (an image of one color,
divided by its deviation) fails their rows.
"""

from collections.abc import Mapping, Sequence

import torch

from run_batch.model.declaration import DeclarationError, RowError

# After so many images, and not one of finite values, the mapper counts as wrong.
_ENOUGH = 4


class FiniteCheck:
    """Checks what the input mappers of one model give, and remembers whether they ever gave finite numbers."""

    def __init__(self) -> None:
        self._finite = self._others = 0

    def check(
        self, where: str, items: Sequence[object], tensors: Mapping[str, torch.Tensor | Sequence[torch.Tensor]]
    ) -> None:
        """Check the keyword tensors of a batch; integers cost nothing.

        Args:
            where: the mapper, for messages.
            items: what the mapper took: images, or tensors of precomputed features.
            tensors: one entry per item in each.

        Raises:
            RowError: `features`, for features that are not finite themselves; else `image_processing`.
            DeclarationError: the mapper has not given finite numbers for any image, and there were several.
        """
        wrong = next((name for name, values in tensors.items() if not _all_finite(values)), None)
        if wrong is None:
            self._finite += len(items)
            return
        for item in items:
            if isinstance(item, torch.Tensor) and not is_finite(item):
                raise RowError("features", "image features hold NaN or infinite values")
        bad = sum(not is_finite(value) for value in tensors[wrong])
        self._finite += len(items) - bad
        self._others += bad
        message = f"{where} gave {wrong} with NaN or infinite values"
        if not self._finite and self._others >= _ENOUGH:
            raise DeclarationError(f"{message} for each of the first images")
        raise RowError("image_processing", message)


def _all_finite(values: torch.Tensor | Sequence[torch.Tensor]) -> bool:
    return is_finite(values) if isinstance(values, torch.Tensor) else all(map(is_finite, values))


def is_finite(tensor: torch.Tensor) -> bool:
    """Whether a tensor holds no NaN and no infinite values."""
    if not tensor.is_floating_point():
        return True
    # A sum is several times as fast as a mask, in float32; that of finite values may overflow.
    small = tensor.dtype in (torch.float16, torch.bfloat16)
    return bool(tensor.sum(dtype=torch.float32 if small else None).isfinite()) or bool(tensor.isfinite().all())
