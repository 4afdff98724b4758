"""GLM-4V and other models on transformers' Glm4vImageProcessor."""

from run_batch.model.declaration import Declaration
from run_batch.model.images.decode import Size
from run_batch.model.mappers.patch_model import PatchSettings, declare_patches
from run_batch.model.mappers.patches import smart_resize
from run_batch.model.mappers.processor_facts import ProcessorFacts


def declare_glm4v(model_cls: type, facts: ProcessorFacts) -> Declaration:
    """Declare the inputs of a model of this family.

    Raises:
        UnknownSettings: see PatchSettings.of.
    """
    settings = PatchSettings.of(facts)
    return declare_patches(model_cls, facts, settings, lambda size: fitted_size(size, settings))


def fitted_size(size: Size, settings: PatchSettings) -> Size:
    """The (height, width) that a GLM-4V resizes an image of (height, width) to.

    It stretches an image with a side shorter than a unit first, and its limits count the pixels of all frames.
    """
    (height, width), unit, frames = size, settings.grid.unit, settings.grid.frames
    if height < unit or width < unit:
        stretch = max(unit / height, unit / width)
        height, width = int(height * stretch), int(width * stretch)
    return smart_resize((height, width), unit, settings.min_pixels, settings.max_pixels, frames)
