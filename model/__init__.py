"""How a model class declares its inputs, and the models that come with run-batch.

This package exports all that the authors of models need. Each name is imported when it is first used: the command line
imports this package before it starts the worker processes, which must not wait for torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from run_batch.model.declaration import (
        DeclarationError,
        DummyData,
        MappedItem,
        PlaceholderRange,
        RowError,
        TokenizedPrompt,
        array_mapper,
    )
    from run_batch.model.images.image_settings import image_settings
    from run_batch.model.images.pixels import PixelNormalizer, PixelSettings, map_image_pixels, map_uint8_pixels
    from run_batch.model.registry import INPUT_REGISTRY, MULTIMODAL_REGISTRY

__all__ = [
    "INPUT_REGISTRY",
    "MULTIMODAL_REGISTRY",
    "DeclarationError",
    "DummyData",
    "MappedItem",
    "PixelNormalizer",
    "PixelSettings",
    "PlaceholderRange",
    "RowError",
    "TokenizedPrompt",
    "array_mapper",
    "image_settings",
    "map_image_pixels",
    "map_uint8_pixels",
]

# Where a name is defined, if not in declaration.py.
_DEFINED_IN = {
    "INPUT_REGISTRY": "registry",
    "MULTIMODAL_REGISTRY": "registry",
    "PixelNormalizer": "images.pixels",
    "PixelSettings": "images.pixels",
    "image_settings": "images.image_settings",
    "map_image_pixels": "images.pixels",
    "map_uint8_pixels": "images.pixels",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_DEFINED_IN.get(name, 'declaration')}"), name)
