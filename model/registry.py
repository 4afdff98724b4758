"""MULTIMODAL_REGISTRY and INPUT_REGISTRY: the decorators by which a model class declares its inputs.

Each decorator adds one function to the class's declaration, in any order. The first one also registers the processor
that vLLM asks the class for (rendering/declared_processor.py), which reads the declaration when an engine or a worker
process starts.
"""

import inspect
import sys
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from run_batch.model.checkpoint.nearest_name import did_you_mean
from run_batch.model.declaration import (
    FEATURES,
    PIXELS,
    Declaration,
    DeclarationError,
    DummyDataFactory,
    InputMapper,
    InputProcessor,
    TensorLayout,
    array_mapper,
    declare,
    declared_classes,
    place_of,
)

ModelClass = TypeVar("ModelClass", bound=type)

# What an input mapper can take: images of one kind, or of either.
_MODALITIES = ("image", PIXELS, FEATURES)


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


def _require_arguments(model_cls: type, what: str, function: Callable[..., Any], arguments: str) -> None:
    """Refuse a function that cannot be called with these positional arguments, at the class that it is declared for."""
    try:
        signature = inspect.signature(function)
    except (ValueError, TypeError):  # cannot be told: the first call shows it
        return
    try:
        signature.bind(*arguments.split(", "))
    except TypeError:
        name = getattr(function, "__name__", type(function).__name__)
        raise DeclarationError(
            f"{model_cls.__name__}'s {what} is called with ({arguments}), but it is {name}{signature} "
            f"({place_of(function)})"
        ) from None


def _names(option: str, names: Iterable[str]) -> frozenset[str]:
    """The names of tensors in `flat` or `on_cpu`; a single text would be taken for its letters."""
    if isinstance(names, str):
        raise DeclarationError(f'{option} = {names!r}: expected names of tensors, such as {option}=["{names}"]')
    return frozenset(names)


def _require_modality(modality: str) -> None:
    if modality not in _MODALITIES:
        plugin = sys._getframe(2)
        raise DeclarationError(
            f"register_input_mapper({modality!r}): run-batch maps images only; expected one of "
            f"{', '.join(_MODALITIES)}{did_you_mean(str(modality), _MODALITIES)} "
            f"({plugin.f_code.co_filename}, line {plugin.f_lineno})"
        )


class MultiModalRegistry:
    """Registers input mappers: how a model's images become its keyword tensors."""

    def register_input_mapper(
        self, modality: str, fn: InputMapper | None = None, *, flat: Iterable[str] = (), on_cpu: Iterable[str] = ()
    ) -> Callable[[ModelClass], ModelClass]:
        """Declare the mapper for all images, or for those of one kind.

        Args:
            modality: `image`, `image_pixels` or `image_features`.
            fn: takes (context, items), where all items are of one kind (pixels or features), and returns keyword
                tensors, each with one entry per item in its first dimension (a tensor, or a list of tensors where
                shapes differ). None: the default mapper.
            flat: names of the tensors that vLLM concatenates along their first dimension when it puts the images of a
                batch together, as models do that take the patches of all images in a row; it stacks all others.
            on_cpu: names of the tensors that stay in the CPU's memory, such as sizes that the model reads as numbers.

        Raises:
            DeclarationError: there is no such modality, or `fn` is no function. The decorator raises it for a class
                that has declared such a mapper already, and where `fn` takes other arguments.
        """
        _require_modality(modality)
        if fn is None:
            fn = _default_mapper(modality)
        _require_function(fn, "MULTIMODAL_REGISTRY.register_input_mapper")
        mapper, layout = fn, TensorLayout(_names("flat", flat), _names("on_cpu", on_cpu))

        def decorate(model_cls: ModelClass) -> ModelClass:
            _require_arguments(model_cls, f"input mapper for {modality}", mapper, "context, items")
            declaration = _declare(model_cls)
            declaration.claim(f"input mappers for {modality}")
            declaration.mappers[modality], declaration.layouts[modality] = mapper, layout
            return model_cls

        return decorate

    def register_image_pixel_input_mapper(
        self, fn: InputMapper | None = None, *, flat: Iterable[str] = (), on_cpu: Iterable[str] = ()
    ) -> Callable[[ModelClass], ModelClass]:
        """Declare the mapper for images given as pixels.

        Args:
            fn: takes PIL images in mode RGB; where it is marked with `array_mapper`, uint8 arrays (height, width, 3).
                None: `map_image_pixels`, which follows the checkpoint's `preprocessor_config.json` and returns
                `pixel_values`, float32 (items, 3, height, width).
            flat, on_cpu: see register_input_mapper.
        """
        return self.register_input_mapper(PIXELS, fn, flat=flat, on_cpu=on_cpu)

    def register_image_feature_input_mapper(
        self, fn: InputMapper | None = None, *, flat: Iterable[str] = (), on_cpu: Iterable[str] = ()
    ) -> Callable[[ModelClass], ModelClass]:
        """Declare the mapper for images given as precomputed features.

        Args:
            fn: takes tensors of shape (features, hidden size). None: a mapper that returns them in the model's dtype,
                as the list `image_features`.
            flat, on_cpu: see register_input_mapper.
        """
        return self.register_input_mapper(FEATURES, fn, flat=flat, on_cpu=on_cpu)


class InputRegistry:
    """Registers input processors and dummy data: how prompts get their placeholder tokens, and how large they get."""

    def register_input_processor(
        self, fn: InputProcessor, changes_text: bool = False
    ) -> Callable[[ModelClass], ModelClass]:
        """Declare the input processor: `fn` takes (context, prompts) and returns the prompts expanded, in order.

        Args:
            changes_text: whether `fn` also changes, drops or adds tokens outside the placeholder ranges; without it,
                that counts as a mistake and stops the job.
        """
        _require_function(fn, "INPUT_REGISTRY.register_input_processor")

        def decorate(model_cls: ModelClass) -> ModelClass:
            _require_arguments(model_cls, "input processor", fn, "context, prompts")
            declaration = _declare(model_cls)
            declaration.claim("input processors")
            declaration.input_processor, declaration.changes_text = fn, changes_text
            return model_cls

        return decorate

    def register_dummy_data(self, factory: DummyDataFactory) -> Callable[[ModelClass], ModelClass]:
        """Declare the dummy data: `factory` takes (context, sequence length in tokens, items per modality)."""
        _require_function(factory, "INPUT_REGISTRY.register_dummy_data")

        def decorate(model_cls: ModelClass) -> ModelClass:
            _require_arguments(model_cls, "dummy data factory", factory, "context, seq_len, mm_counts")
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
    return defaults[modality]


MULTIMODAL_REGISTRY = MultiModalRegistry()
INPUT_REGISTRY = InputRegistry()
