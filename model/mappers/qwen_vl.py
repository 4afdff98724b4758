"""Qwen2-VL, Qwen2.5-VL, Qwen3-VL and other models on transformers' Qwen2VLImageProcessor."""

from functools import partial

from run_batch.model.declaration import Declaration
from run_batch.model.mappers.patch_model import PatchSettings, declare_patches
from run_batch.model.mappers.patches import smart_resize
from run_batch.model.mappers.processor_facts import ProcessorFacts


def declare_qwen_vl(model_cls: type, facts: ProcessorFacts) -> Declaration:
    """Declare the inputs of a model of this family.

    Raises:
        UnknownSettings: see PatchSettings.of.
    """
    settings = PatchSettings.of(facts)
    fitted = partial(
        smart_resize, unit=settings.grid.unit, min_pixels=settings.min_pixels, max_pixels=settings.max_pixels
    )
    return declare_patches(model_cls, facts, settings, fitted)
