"""The model side: how a model class declares its inputs, and the models that come with run-batch.

What is named here is imported when it is first used: the command line looks into this package before it starts the
worker processes, and importing torch then would make them wait for seconds.
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
    from run_batch.model.registry import INPUT_REGISTRY, MULTIMODAL_REGISTRY

__all__ = [
    "INPUT_REGISTRY",
    "MULTIMODAL_REGISTRY",
    "DeclarationError",
    "DummyData",
    "MappedItem",
    "PlaceholderRange",
    "RowError",
    "TokenizedPrompt",
    "array_mapper",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = "registry" if name.endswith("_REGISTRY") else "declaration"
    return getattr(importlib.import_module(f"{__name__}.{module}"), name)
