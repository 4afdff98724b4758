"""What a bulk mapper has to know of vLLM's processor for a model."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from run_batch.model.declaration import InputProcessor


class UnknownSettings(Exception):
    """A setting of an image processor that the bulk mapper of its family does not know; the message names it."""


@dataclass(frozen=True, slots=True)
class ProcessorFacts:
    """What vLLM's processor for a model makes of the checkpoint and of the job.

    Attributes:
        image_processor: name of the class of transformers' image processor, with its module.
        settings: what transformers calls it with: the checkpoint's settings, with the job's
            `engine.mm_processor_kwargs` and what vLLM sets itself over them.
        image_token_id: the token that stands for an image in a prompt, and for each of its features.
        dtype: of the floating point tensors that the model takes.
        expand: the input processor that puts into a prompt what vLLM's own processor puts there.
    """

    image_processor: str
    settings: Mapping[str, Any]
    image_token_id: int
    dtype: torch.dtype
    expand: InputProcessor
