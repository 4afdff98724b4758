"""MULTIMODAL_REGISTRY and INPUT_REGISTRY: the decorators by which a model class declares its inputs.

Each decorator adds one function to the class's declaration, in any order. The first one also registers the processor
that vLLM asks the class for (rendering/declared_processor.py), which reads the declaration when an engine or a worker
process starts.
"""

from collections.abc import Callable
from typing import Any, TypeVar

from run_batch.model.declaration import (
    FEATURES,
    PIXELS,
    Declaration,
    DeclarationError,
    DummyDataFactory,
    InputMapper,
    InputProcessor,
    array_mapper,
    declare,
    declared_classes,
)

ModelClass = TypeVar("ModelClass", bound=type)


def _declare(model_cls: type) -> Declaration:
    if model_cls not in declared_classes():
        from run_batch.model.rendering.declared_processor import install_processor

        install_processor(model_cls)
    return declare(model_cls)


def _require_function(value: Any, decorator: str) -> None:
    if isinstance(value, type) or not callable(value):
        raise DeclarationError(
            f"@{decorator} takes a function, found {value!r}. Write @{decorator}(your_function) above the class"
        )


class MultiModalRegistry:
    """Registers input mappers: how a model's images become its keyword tensors."""

    def register_input_mapper(self, modality: str, fn: InputMapper | None = None) -> Callable[[ModelClass], ModelClass]:
        """Declare the mapper for all items of `modality`.

        Args:
            modality: `image`.
            fn: takes (context, items), where all items are of one kind (pixels or features), and returns keyword
                tensors, each with one entry per item in its first dimension (a tensor, or a list of tensors where
                shapes differ). None: the default mapper.

        Raises:
            DeclarationError: `fn` is no function, or the modality has no default mapper. The decorator raises it
                for a class that has declared such a mapper already.
        """
        if fn is None:
            fn = _default_mapper(modality)
        _require_function(fn, "MULTIMODAL_REGISTRY.register_input_mapper")
        mapper = fn

        def decorate(model_cls: ModelClass) -> ModelClass:
            declaration = _declare(model_cls)
            declaration.claim(f"input mappers for {modality}")
            declaration.mappers[modality] = mapper
            return model_cls

        return decorate

    def register_image_pixel_input_mapper(self, fn: InputMapper | None = None) -> Callable[[ModelClass], ModelClass]:
        """Declare the mapper for images given as pixels.

        Args:
            fn: takes PIL images in mode RGB; where it is marked with `array_mapper`, uint8 arrays (height, width, 3).
                None: `map_image_pixels`, which follows the checkpoint's `preprocessor_config.json` and returns
                `pixel_values`, float32 (items, 3, height, width).
        """
        return self.register_input_mapper(PIXELS, fn)

    def register_image_feature_input_mapper(self, fn: InputMapper | None = None) -> Callable[[ModelClass], ModelClass]:
        """Declare the mapper for images given as precomputed features.

        Args:
            fn: takes tensors of shape (features, hidden size). None: a mapper that returns them in the model's dtype,
                as the list `image_features`.
        """
        return self.register_input_mapper(FEATURES, fn)


class InputRegistry:
    """Registers input processors and dummy data: how prompts get their placeholder tokens, and how large they get."""

    def register_input_processor(self, fn: InputProcessor) -> Callable[[ModelClass], ModelClass]:
        """Declare the input processor: `fn` takes (context, prompts) and returns the prompts expanded, in order."""
        _require_function(fn, "INPUT_REGISTRY.register_input_processor")

        def decorate(model_cls: ModelClass) -> ModelClass:
            declaration = _declare(model_cls)
            declaration.claim("input processors")
            declaration.input_processor = fn
            return model_cls

        return decorate

    def register_dummy_data(self, factory: DummyDataFactory) -> Callable[[ModelClass], ModelClass]:
        """Declare the dummy data: `factory` takes (context, sequence length in tokens, items per modality)."""
        _require_function(factory, "INPUT_REGISTRY.register_dummy_data")

        def decorate(model_cls: ModelClass) -> ModelClass:
            declaration = _declare(model_cls)
            declaration.claim("dummy data factories")
            declaration.dummy_data = factory
            return model_cls

        return decorate


def _default_mapper(modality: str) -> InputMapper:
    import torch

    from run_batch.model.images.features import map_image_features
    from run_batch.model.images.pixels import map_image_pixels

    @array_mapper
    def map_image(context: Any, items: list[Any]) -> Any:
        features = isinstance(items[0], torch.Tensor)
        return (map_image_features if features else map_image_pixels)(context, items)

    defaults: dict[str, InputMapper] = {
        PIXELS: map_image_pixels,
        FEATURES: map_image_features,
        "image": map_image,
    }
    if modality not in defaults:
        raise DeclarationError(
            f"there is no default input mapper for modality {modality!r}; pass a function to register_input_mapper"
        )
    return defaults[modality]


MULTIMODAL_REGISTRY = MultiModalRegistry()
INPUT_REGISTRY = InputRegistry()
