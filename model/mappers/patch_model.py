"""The declaration of a model that takes the patches of all its images in a row, as Qwen's and GLM's vision models do.

Families differ in the size that they give an image; `qwen_vl.py` and `glm4v.py` say how.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from run_batch.model.declaration import PIXELS, Declaration, Normalization, TensorLayout, TokenizedPrompt, array_mapper
from run_batch.model.images.decode import Size
from run_batch.model.images.mapped_memory import new_pixels
from run_batch.model.images.resize import check_new_size
from run_batch.model.mappers.normalization import normalization_of
from run_batch.model.mappers.patches import PatchGrid, filter_of
from run_batch.model.mappers.plane_resize import resize_to_patches
from run_batch.model.mappers.processor_facts import ProcessorFacts


@dataclass(frozen=True, slots=True)
class PatchSettings:
    """The settings of an image processor that gives patches.

    Attributes:
        grid: how images are cut.
        min_pixels, max_pixels: limits of an image's height times width.
        filter: see `resize`.
        normalization: None where the model does it itself.
    """

    grid: PatchGrid
    min_pixels: int
    max_pixels: int
    filter: str
    normalization: Normalization | None

    @classmethod
    def of(cls, facts: ProcessorFacts) -> "PatchSettings":
        """From the settings with which transformers calls its image processor.

        Raises:
            UnknownSettings: it does something else with some of them than these mappers do.
        """
        settings = facts.settings
        return cls(
            PatchGrid(settings["patch_size"], settings["merge_size"], settings["temporal_patch_size"]),
            settings["size"]["shortest_edge"],
            settings["size"]["longest_edge"],
            filter_of(settings),
            normalization_of(settings, facts.dtype),
        )


def declare_patches(
    model_cls: type, facts: ProcessorFacts, settings: PatchSettings, fitted: Callable[[Size], Size]
) -> Declaration:
    """Declare `pixel_values`, an image's patches of one frame each, and `image_grid_thw`, its frames, rows and columns.

    Args:
        fitted: the (height, width) that an image of (height, width) is resized to.
    """
    grid = settings.grid

    @array_mapper
    def map_patches(context: Any, items: list[np.ndarray]) -> dict[str, list[torch.Tensor]]:
        values, grids = [], []
        for item in items:
            size = fitted(item.shape[:2])  # type: ignore[arg-type]
            check_new_size(item, size)
            rows, columns = (length // grid.patch_size for length in size)
            patches = new_pixels(rows * columns, 3 * grid.patch_size**2)
            resize_to_patches(np.ascontiguousarray(item), size, settings.filter, grid, patches)
            values.append(torch.from_numpy(patches))
            grids.append(torch.from_numpy(np.array([1, rows, columns])))
        return {"pixel_values": values, "image_grid_thw": grids}

    def expand(context: Any, prompts: list[TokenizedPrompt]) -> list[TokenizedPrompt]:
        token, merged = facts.image_token_id, grid.merge_size**2
        return [
            prompt.expand(token, [[token] * (len(item.tensors["pixel_values"]) // merged) for item in prompt.items])
            for prompt in prompts
        ]

    layout = TensorLayout(
        flat=frozenset({"pixel_values"}),
        on_cpu=frozenset({"image_grid_thw"}),
        frames=grid.frames,
        normalization=settings.normalization,
    )
    return Declaration(model_cls, {PIXELS: map_patches}, expand, layouts={PIXELS: layout})
