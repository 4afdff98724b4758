"""Patches whose frames are all the same, as those of a single image are in a model of videos.

A model of videos takes patches of two frames, and for an image the same frame twice. It is mapped, sent to the engine
and copied to the device once; there the field below repeats it, where vLLM puts the images of a batch together.
"""

from dataclasses import dataclass
from typing import Any

import torch
from vllm.multimodal.inputs import BaseMultiModalField, MultiModalFieldConfig, MultiModalFieldElem, MultiModalFlatField
from vllm.v1 import serial_utils

_CHANNELS = 3
_NAME = "run_batch_same_frames"


@dataclass(frozen=True, kw_only=True)
class SameFramesField(BaseMultiModalField):
    """Concatenates patches of one frame, (patches, channels * values), and repeats it in each of their channels.

    Attributes:
        frames: how often; the model gets (patches, channels * frames * values).
    """

    frames: int

    def build_elems(self, modality: str, key: str, data: Any) -> Any:
        raise NotImplementedError("engine inputs are built of elements")

    def _reduce_data(self, batch: list[Any], *, pin_memory: bool) -> Any:
        return MultiModalFlatField(slices=[])._reduce_data(batch, pin_memory=pin_memory)

    def reduce_data(
        self, elems: list[MultiModalFieldElem], *, device: torch.types.Device = None, pin_memory: bool = False
    ) -> torch.Tensor:
        """The patches of several images, on their device."""
        once: Any = super().reduce_data(elems, device=device, pin_memory=pin_memory)
        count = len(once)
        channels = once.view(count, _CHANNELS, 1, -1)
        return channels.expand(-1, -1, self.frames, -1).reshape(count, -1)


def _config(modality: str, **fields: Any) -> MultiModalFieldConfig:
    return MultiModalFieldConfig(SameFramesField(**fields), modality)


def install_frames_field() -> None:
    """Have vLLM send such fields between its processes; to be called in each of them."""
    serial_utils.MMF_CLASS_TO_FACTORY[SameFramesField] = _NAME
    setattr(MultiModalFieldConfig, _NAME, staticmethod(_config))
