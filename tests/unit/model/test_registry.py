"""The decorators by which a model class declares its inputs."""

from functools import partial
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


@pytest.mark.parametrize("fn", [None, mean_mapper])
def test_a_modality_that_is_not_mapped_is_refused_where_it_is_named(fn: Any) -> None:
    for modality, hint in (("video", ""), ("audio", ""), ("smell", ""), ("images", "; did you mean image?")):
        with pytest.raises(DeclarationError) as caught:
            MULTIMODAL_REGISTRY.register_input_mapper(modality, fn)
        message = str(caught.value)
        assert repr(modality) in message and "expected one of image, image_pixels, image_features" + hint in message
        assert "test_registry.py, line" in message and "\n" not in message


def no_items(context: Any) -> dict[str, torch.Tensor]:
    return {}


class Processors:
    def no_context(self, prompts: list[TokenizedPrompt]) -> list[TokenizedPrompt]:
        return prompts

    def fitting(self, context: Any, prompts: list[TokenizedPrompt]) -> list[TokenizedPrompt]:
        return prompts


def test_a_function_that_takes_other_arguments_is_refused_at_the_decorator() -> None:
    class Model(nn.Module):
        pass

    for register, says in (
        (
            MULTIMODAL_REGISTRY.register_image_pixel_input_mapper(no_items),
            "Model's input mapper for image_pixels is called with (context, items), but it is no_items(context: Any)",
        ),
        (
            INPUT_REGISTRY.register_input_processor(Processors().no_context),
            "Model's input processor is called with (context, prompts), but it is no_context(prompts: ",
        ),
        (
            INPUT_REGISTRY.register_input_processor(partial(three_tokens, None)),
            "Model's input processor is called with (context, prompts), but it is partial(prompts: ",
        ),
        (
            INPUT_REGISTRY.register_dummy_data(lambda seq_len, mm_counts: DummyData()),
            "Model's dummy data factory is called with (context, seq_len, mm_counts), but it is <lambda>(seq_len, ",
        ),
    ):
        with pytest.raises(DeclarationError) as caught:
            register(Model)
        assert says in str(caught.value)
        assert "test_registry.py, line" in str(caught.value) and "\n" not in str(caught.value)
    assert declaration_of(Model) is None

    INPUT_REGISTRY.register_input_processor(Processors().fitting)(Model)
    MULTIMODAL_REGISTRY.register_input_mapper("image", lambda *arguments, more=None: {})(Model)


def test_how_tensors_are_put_together_goes_with_their_mapper() -> None:
    @MULTIMODAL_REGISTRY.register_image_pixel_input_mapper(mean_mapper, flat=["colour"], on_cpu=["colour"])
    class Base(nn.Module):
        pass

    class Same(Base):
        pass

    @MULTIMODAL_REGISTRY.register_image_pixel_input_mapper(mean_mapper)
    class Other(Base):
        pass

    declared = {cls: declaration_of(cls) for cls in (Base, Same, Other)}
    flat = {cls: declaration.layout.flat for cls, declaration in declared.items() if declaration is not None}
    assert flat == {Base: {"colour"}, Same: {"colour"}, Other: frozenset()}


def test_the_name_of_one_tensor_is_no_list_of_names() -> None:
    with pytest.raises(
        DeclarationError, match=r'flat = .colour.: expected names of tensors, such as flat=\["colour"\]'
    ):
        MULTIMODAL_REGISTRY.register_image_pixel_input_mapper(mean_mapper, flat="colour")


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
