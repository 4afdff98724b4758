"""Pixels that become what the model takes only on its device, where vLLM puts the images of a batch together.

A worker process sends bytes, one for each value, and one frame of each patch: a model of videos takes patches of two
frames, and for an image the same frame twice. The field below makes of them the floating point values, and the frames,
that vLLM's own processor sends.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.nn import functional
from vllm.multimodal.inputs import (
    BaseMultiModalField,
    MultiModalBatchedField,
    MultiModalFieldConfig,
    MultiModalFieldElem,
    MultiModalFlatField,
)
from vllm.v1 import serial_utils

from run_batch.model.declaration import TensorLayout

_CHANNELS = 3
_PIXELS, _MASK = "run_batch_device_pixels", "run_batch_whole_mask"


@dataclass(frozen=True, kw_only=True)
class DevicePixelsField(BaseMultiModalField):
    """Puts pixels of several images together, and finishes them.

    Attributes:
        is_flat: whether they are concatenated, uint8 (items, channels, height, width) or (items, channels * values);
            else they are stacked where shapes are equal, (tiles, channels, height, width) for each image.
        frames: how often each channel of an item is repeated: the model gets (items, channels * frames * values).
        tiles: how many tiles the model gets of an image of stacked pixels at least; zeros follow its own.
        mean, std, divisor, dtype: see Normalization; a dtype of None leaves bytes as they are.
    """

    is_flat: bool = True
    frames: int = 1
    tiles: int = 0
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    divisor: float = 1.0
    dtype: str | None = None

    def build_elems(self, modality: str, key: str, data: Any) -> Any:
        raise NotImplementedError("engine inputs are built of elements")

    def _reduce_data(self, batch: list[Any], *, pin_memory: bool) -> Any:
        field = MultiModalFlatField(slices=[]) if self.is_flat else MultiModalBatchedField()
        return field._reduce_data(batch, pin_memory=pin_memory)

    def reduce_data(
        self, elems: list[MultiModalFieldElem], *, device: torch.types.Device = None, pin_memory: bool = False
    ) -> torch.Tensor | list[torch.Tensor]:
        """The pixels of several images, on their device."""
        pixels: Any = super().reduce_data(elems, device=device, pin_memory=pin_memory)
        finished = self._finished(pixels) if isinstance(pixels, torch.Tensor) else list(map(self._finished, pixels))
        return finished if self.is_flat else _padded(finished, [elem.field.tiles for elem in elems])

    def _finished(self, pixels: torch.Tensor) -> torch.Tensor:
        values = pixels if self.dtype is None else self._normalized(pixels)
        if self.frames == 1:
            return values
        count = len(values)
        return values.view(count, _CHANNELS, 1, -1).expand(-1, -1, self.frames, -1).reshape(count, -1)

    def _normalized(self, pixels: torch.Tensor) -> torch.Tensor:
        """Looked up, not computed: devices may differ in the last bit of a division."""
        assert self.dtype is not None
        table, starts = _table(self.mean, self.std, self.divisor, self.dtype, pixels.device)
        values = pixels.shape[-1] // _CHANNELS if pixels.ndim == 2 else pixels.shape[-2] * pixels.shape[-1]
        places = pixels.reshape(-1, _CHANNELS, values) + starts
        return table.index_select(0, places.view(-1)).view(pixels.shape)


def _padded(images: torch.Tensor | list[torch.Tensor], tiles: Sequence[int]) -> torch.Tensor | list[torch.Tensor]:
    """Images of (tiles, channels, height, width), each with so many tiles at least, stacked where shapes are equal."""
    missing = [max(0, least - len(image)) for image, least in zip(images, tiles, strict=True)]
    if not any(missing):
        return images
    padded = [functional.pad(image, (0, 0) * 3 + (0, more)) for image, more in zip(images, missing, strict=True)]
    is_one_shape = len({image.shape for image in padded}) == 1
    return torch.stack(padded) if is_one_shape else padded


@dataclass(frozen=True, kw_only=True)
class WholeMaskField(BaseMultiModalField):
    """Masks of tiles that are pixels all over: of (tiles, 0, height, width), ones, int64 (tiles, height, width)."""

    def build_elems(self, modality: str, key: str, data: Any) -> Any:
        raise NotImplementedError("engine inputs are built of elements")

    def _reduce_data(self, batch: list[Any], *, pin_memory: bool) -> Any:
        return torch.cat(batch)

    def reduce_data(
        self, elems: list[MultiModalFieldElem], *, device: torch.types.Device = None, pin_memory: bool = False
    ) -> torch.Tensor:
        """The masks of the tiles of several images, on their device."""
        shapes: Any = super().reduce_data(elems, device=device)
        tiles, _, height, width = shapes.shape
        return torch.ones((tiles, height, width), dtype=torch.int64, device=shapes.device)


@functools.lru_cache(maxsize=8)
def _table(
    mean: tuple[float, ...], std: tuple[float, ...], divisor: float, dtype: str, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """The values of all bytes of all channels, one channel after the other, and where each channel starts, int32."""
    values = torch.arange(256, dtype=torch.float32).div(divisor).repeat(len(mean), 1)
    table = values.sub_(torch.tensor(mean)[:, None]).div_(torch.tensor(std)[:, None]).to(getattr(torch, dtype))
    starts = torch.arange(len(mean), dtype=torch.int32)[:, None] * 256
    return table.view(-1).to(device), starts.to(device)


def device_pixels_field(layout: TensorLayout, is_flat: bool, on_cpu: bool, tiles: int) -> DevicePixelsField | None:
    """The field of pixels of a layout that leaves something to the device; None for any other layout.

    Args:
        tiles: see DevicePixelsField.
    """
    normalization = layout.normalization
    plain = DevicePixelsField(is_flat=is_flat, frames=layout.frames, tiles=tiles, keep_on_cpu=on_cpu)
    if normalization is None:
        return plain if tiles or (is_flat and layout.frames > 1) else None
    return replace(
        plain,
        mean=normalization.mean,
        std=normalization.std,
        divisor=normalization.divisor,
        dtype=str(normalization.dtype).removeprefix("torch."),
    )


def _config(modality: str, mean: Any, std: Any, **fields: Any) -> MultiModalFieldConfig:
    return MultiModalFieldConfig(DevicePixelsField(mean=tuple(mean), std=tuple(std), **fields), modality)


def _mask_config(modality: str, **fields: Any) -> MultiModalFieldConfig:
    return MultiModalFieldConfig(WholeMaskField(**fields), modality)


def install_device_pixels() -> None:
    """Have vLLM send such fields between its processes; to be called in each of them."""
    serial_utils.MMF_CLASS_TO_FACTORY.update({DevicePixelsField: _PIXELS, WholeMaskField: _MASK})
    setattr(MultiModalFieldConfig, _PIXELS, staticmethod(_config))
    setattr(MultiModalFieldConfig, _MASK, staticmethod(_mask_config))
