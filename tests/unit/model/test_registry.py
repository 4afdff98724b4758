"""The decorators by which a model class declares its inputs."""

from typing import Any

import pytest
import torch
from torch import nn

from run_batch.model import INPUT_REGISTRY, MULTIMODAL_REGISTRY, DeclarationError, DummyData, TokenizedPrompt
from run_batch.model.declaration import declaration_of, declared_classes

pytestmark = pytest.mark.usefixtures("declared_for_one_test")


def mean_mapper(context: Any, items: list[Any]) -> dict[str, torch.Tensor]:
    return {"colour": torch.zeros(len(items), 3)}


def three_tokens(context: Any, prompts: list[TokenizedPrompt]) -> list[TokenizedPrompt]:
    return [prompt.expand(9, [[9, 9, 9]] * len(prompt.items)) for prompt in prompts]


def dummy(context: Any, seq_len: int, mm_counts: Any) -> DummyData:
    return DummyData()


def test_the_decorators_declare_mappers_input_processor_and_dummy_data() -> None:
    @MULTIMODAL_REGISTRY.register_image_feature_input_mapper()
    @MULTIMODAL_REGISTRY.register_image_pixel_input_mapper()
    @INPUT_REGISTRY.register_dummy_data(dummy)
    @INPUT_REGISTRY.register_input_processor(three_tokens)
    class YourModelForImage2Seq(nn.Module):
        pass

    declaration = declaration_of(YourModelForImage2Seq)
    assert declaration is not None
    assert sorted(declaration.mappers) == ["image_features", "image_pixels"]
    assert declaration.input_processor is three_tokens
    assert declaration.dummy_data is dummy
    assert declared_classes()[-1] is YourModelForImage2Seq
    assert hasattr(YourModelForImage2Seq, "_processor_factory")


def test_two_registrations_for_one_model_are_refused() -> None:
    class Model(nn.Module):
        pass

    twice = [
        MULTIMODAL_REGISTRY.register_image_pixel_input_mapper(),
        INPUT_REGISTRY.register_input_processor(three_tokens),
        INPUT_REGISTRY.register_dummy_data(dummy),
    ]
    for register in twice:
        register(Model)
        with pytest.raises(DeclarationError, match="Model has two"):
            register(Model)


def test_a_decorator_without_its_parentheses_is_refused() -> None:
    with pytest.raises(DeclarationError, match="takes a function"):

        @INPUT_REGISTRY.register_input_processor  # type: ignore[arg-type]
        class Model(nn.Module):
            pass

    with pytest.raises(DeclarationError, match="no default input mapper for modality 'smell'"):
        MULTIMODAL_REGISTRY.register_input_mapper("smell")


def test_a_subclass_inherits_what_it_does_not_declare() -> None:
    @MULTIMODAL_REGISTRY.register_image_pixel_input_mapper(mean_mapper)
    @INPUT_REGISTRY.register_input_processor(three_tokens)
    class Base(nn.Module):
        pass

    def other_mapper(context: Any, items: list[Any]) -> dict[str, torch.Tensor]:
        return {"other": torch.zeros(len(items), 1)}

    @MULTIMODAL_REGISTRY.register_image_pixel_input_mapper(other_mapper)
    class Derived(Base):
        pass

    base, derived = declaration_of(Base), declaration_of(Derived)
    assert base is not None and derived is not None
    assert derived.mappers["image_pixels"] is other_mapper and derived.input_processor is three_tokens
    assert base.mappers["image_pixels"] is mean_mapper
