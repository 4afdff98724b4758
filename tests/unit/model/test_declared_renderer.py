"""The renderer of declared models: what it gives, and messages for mistakes of the functions that it calls."""

import hashlib
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from pictures import encoded
from PIL import Image
from torch import nn

from run_batch.model import (
    INPUT_REGISTRY,
    MULTIMODAL_REGISTRY,
    DeclarationError,
    PlaceholderRange,
    RowError,
    TokenizedPrompt,
    array_mapper,
)
from run_batch.model.declaration import declaration_of
from run_batch.model.images.row_image import EncodedImage
from run_batch.model.rendering import image_mapper
from run_batch.model.rendering.declared_renderer import DeclaredRenderer
from run_batch.model.rendering.feature_counts import install_feature_count_check

pytestmark = pytest.mark.usefixtures("declared_for_one_test")

IMAGE = 9


def mean_mapper(context: Any, items: list[Image.Image]) -> dict[str, torch.Tensor]:
    """Three numbers per image: its mean colour. A white image is refused."""
    means = [torch.tensor(item.resize((1, 1)).getpixel((0, 0)), dtype=torch.float32) for item in items]
    if any(mean.min() == 255 for mean in means):
        raise RowError("too_white", "nothing to see")
    return {"colour": torch.stack(means)}


def three_tokens(context: Any, prompts: list[TokenizedPrompt]) -> list[TokenizedPrompt]:
    return [prompt.expand(IMAGE, [[IMAGE, IMAGE, 5]] * len(prompt.items), embed_token_id=IMAGE) for prompt in prompts]


def declared(
    mapper: Any = mean_mapper, processor: Any = three_tokens, scaled_jpeg_decoding: bool = False
) -> DeclaredRenderer:
    @MULTIMODAL_REGISTRY.register_image_pixel_input_mapper(mapper)
    @INPUT_REGISTRY.register_input_processor(processor)
    class YourModelForImage2Seq(nn.Module):
        pass

    declaration = declaration_of(YourModelForImage2Seq)
    assert declaration is not None
    return DeclaredRenderer(None, declaration, scaled_jpeg_decoding)  # type: ignore[arg-type]


def rendered(renderer: DeclaredRenderer, *rows: tuple[list[int], list[Any]]) -> list[Any]:
    """Rows of token ids and images, through the renderer."""
    return renderer.render([ids for ids, _ in rows], [images for _, images in rows])


def layout_of(mapper: Any, **layout: Any) -> Any:
    """How vLLM puts the tensors of a mapper together: field types by their names, for one row."""

    @MULTIMODAL_REGISTRY.register_image_pixel_input_mapper(mapper, **layout)
    @INPUT_REGISTRY.register_input_processor(three_tokens)
    class YourModelForImage2Seq(nn.Module):
        pass

    declaration = declaration_of(YourModelForImage2Seq)
    assert declaration is not None
    (row,) = rendered(DeclaredRenderer(None, declaration), ([IMAGE], [colour(10)]))  # type: ignore[arg-type]
    (item,) = row["mm_kwargs"]["image"]
    return {name: (type(element.field).__name__, element.field.keep_on_cpu) for name, element in item.items()}


def two_tensors(context: Any, items: list[Image.Image]) -> dict[str, Any]:
    return {"patches": [torch.zeros(4, 2) for _ in items], "sizes": torch.zeros(len(items), 2)}


def test_a_mappers_tensors_are_stacked_or_concatenated_on_the_device_or_the_cpu_as_declared() -> None:
    found = layout_of(two_tensors, flat=["patches"], on_cpu=["sizes"])
    assert found == {"patches": ("MultiModalFlatField", False), "sizes": ("MultiModalBatchedField", True)}
    assert layout_of(two_tensors)["patches"] == ("MultiModalBatchedField", False)


@pytest.mark.parametrize("option", ["flat", "on_cpu"])
def test_a_tensor_that_the_mapper_does_not_give_cannot_be_declared(option: str) -> None:
    with pytest.raises(DeclarationError, match=f"registered with {option} = 'patch', but it gives patches, sizes"):
        layout_of(two_tensors, **{option: ["patch"]})


def test_numbers_cannot_be_concatenated() -> None:
    with pytest.raises(DeclarationError, match="gave numbers in size, which is registered as flat"):
        layout_of(lambda context, items: {"size": torch.zeros(len(items))}, flat=["size"])


def colour(value: int) -> Image.Image:
    return Image.new("RGB", (4, 4), (value, value, value))


def test_prompts_are_expanded_and_items_mapped_in_order() -> None:
    first, second = rendered(declared(), ([1, IMAGE, 2], [colour(10)]), ([IMAGE, 3, IMAGE], [colour(20), colour(30)]))
    assert first["prompt_token_ids"] == [1, IMAGE, IMAGE, 5, 2]
    assert second["prompt_token_ids"] == [IMAGE, IMAGE, 5, 3, IMAGE, IMAGE, 5]
    ranges = second["mm_placeholders"]["image"]
    assert [(r.offset, r.length, r.is_embed.tolist()) for r in ranges] == [
        (0, 3, [True, True, False]),
        (4, 3, [True, True, False]),
    ]
    values = [item["colour"].data.tolist() for item in second["mm_kwargs"]["image"]]
    assert values == [[20.0] * 3, [30.0] * 3]


def test_equal_images_have_equal_hashes_and_others_have_not() -> None:
    (row,) = rendered(declared(), ([IMAGE] * 3, [colour(1), colour(2), colour(1)]))
    one, two, three = row["mm_hashes"]["image"]
    assert one == three != two


def test_many_rows_at_once_give_what_single_rows_give() -> None:
    renderer = declared()
    rows = [([IMAGE] * (n % 3), [colour(n + k) for k in range(n % 3)]) for n in range(20)]
    rows.append(([IMAGE], [colour(255)]))
    assert [str(row) for row in rendered(renderer, *rows)] == [str(rendered(renderer, row)[0]) for row in rows]


def test_a_row_that_cannot_be_mapped_leaves_its_neighbours_untouched() -> None:
    good, white, short = rendered(declared(), ([IMAGE], [colour(1)]), ([IMAGE], [colour(255)]), ([1], [colour(2)]))
    assert not isinstance(good, RowError)
    assert str(white) == "too_white: nothing to see"
    assert str(short) == "placeholders: the prompt has 0 image placeholders, the row has 1 images"


def fails(mapper: Any = mean_mapper, processor: Any = three_tokens) -> str:
    with pytest.raises(DeclarationError) as caught:
        rendered(declared(mapper, processor), ([IMAGE], [colour(1)]))
    assert "YourModelForImage2Seq" in str(caught.value)
    return str(caught.value)


def test_mistakes_of_mappers_have_messages() -> None:
    assert "gave 2 entries in x for 1 items" in fails(lambda c, items: {"x": torch.ones(2, 3)})
    assert "without a batch dimension" in fails(lambda c, items: {"x": torch.tensor(1.0)})
    assert "gave x as int" in fails(lambda c, items: {"x": 3})
    assert "must return keyword tensors" in fails(lambda c, items: [1])


def test_an_image_of_a_kind_that_the_model_does_not_take_fails_its_row_alone() -> None:
    features, good = rendered(declared(), ([IMAGE], [torch.ones(2, 3)]), ([IMAGE], [colour(1)]))
    assert str(features).startswith("image_unsupported: ") and "declares no input mapper for image_features" in str(
        features
    )
    assert not isinstance(good, RowError)


def test_mistakes_of_input_processors_have_messages() -> None:
    assert "took 1 prompts and gave 0 back" in fails(processor=lambda c, prompts: [])
    assert "gave 0 placeholder ranges for a prompt with 1 images" in fails(processor=lambda c, prompts: prompts)
    assert "must return a list of TokenizedPrompt" in fails(processor=lambda c, prompts: None)
    assert "must return a list of TokenizedPrompt" in fails(processor=lambda c, prompts: [None] * len(prompts))
    for place, said in (
        (PlaceholderRange(500, 3), "ends at token 503 of a prompt of 1"),
        (PlaceholderRange(0, 0), "empty, overlap or are out of order"),
    ):
        assert said in fails(
            processor=lambda c, prompts, place=place: [replace(p, placeholders=(place,)) for p in prompts]
        )


def test_a_model_is_held_to_the_placeholders_of_its_input_processor() -> None:
    class Model(nn.Module):
        def embed_multimodal(self, x: torch.Tensor) -> list[torch.Tensor]:
            return [torch.zeros(2, 4) for _ in x]

    install_feature_count_check(Model)
    model: Any = Model()
    assert len(model.embed_multimodal(x=torch.zeros(3))) == 3
    assert len(model.embed_multimodal(x=torch.zeros(3), run_batch_feature_counts=torch.tensor([2, 2, 2]))) == 3
    with pytest.raises(
        DeclarationError, match="5 placeholder tokens for features, and its embed_multimodal 2 features"
    ):
        model.embed_multimodal(x=torch.zeros(2), run_batch_feature_counts=torch.tensor([2, 5]))


def test_a_bug_in_a_mapper_is_no_row_error() -> None:
    def broken(context: Any, items: list[Any]) -> Any:
        raise KeyError("typo")

    message = fails(broken)
    assert (
        "input mapper for image_pixels failed: KeyError: 'typo'" in message
        and "test_declared_renderer.py, line" in message
    )


def test_a_call_that_does_not_fit_names_the_function_of_the_plugin() -> None:
    class Hidden:
        """Its signature cannot be told before it is called."""

        __signature__ = "unknown"

        def __call__(self, prompts: Any) -> Any:
            return prompts

    message = fails(processor=Hidden())
    line = Hidden.__call__.__code__.co_firstlineno
    assert f"test_declared_renderer.py, line {line})" in message and "\n" not in message


def test_what_a_function_gives_wrongly_is_told_with_the_place_of_the_function() -> None:
    def forgetful(context: Any, prompts: Any) -> Any:
        return prompts

    place = f"test_declared_renderer.py, line {forgetful.__code__.co_firstlineno})"
    assert place in fails(processor=forgetful)
    assert place in fails(processor=partial(forgetful))


def file_of(value: int) -> EncodedImage:
    content = encoded(colour(value))
    return EncodedImage(content, hashlib.sha256(content).digest())


def test_an_image_file_that_comes_again_is_mapped_once() -> None:
    mapped: list[Image.Image] = []

    def counting(context: Any, items: list[Image.Image]) -> dict[str, torch.Tensor]:
        mapped.extend(items)
        return mean_mapper(context, items)

    renderer = declared(counting)
    first = rendered(renderer, ([IMAGE], [file_of(1)]), ([IMAGE, IMAGE], [file_of(2), file_of(1)]))
    second = rendered(renderer, ([IMAGE], [file_of(2)]), ([IMAGE], [file_of(3)]))
    assert [image.getpixel((0, 0))[0] for image in mapped] == [1, 2, 3]
    values = [item["colour"].data[0].item() for row in [*first, *second] for item in row["mm_kwargs"]["image"]]
    assert values == [1, 2, 1, 2, 3]
    # By these vLLM knows what it has encoded already.
    hashes = [name for row in [*first, *second] for name in row["mm_hashes"]["image"]]
    assert [hashes.index(name) for name in hashes] == [0, 1, 0, 1, 4]


def test_images_are_mapped_in_groups_of_limited_size_and_each_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_mapper, "_DECODED_BYTES", 2 * 4 * 4 * 3)  # two images
    groups: list[int] = []

    def counting(context: Any, items: list[Image.Image]) -> dict[str, torch.Tensor]:
        groups.append(len(items))
        return mean_mapper(context, items)

    (row,) = rendered(declared(counting), ([IMAGE] * 5, [file_of(n) for n in range(5)]))
    assert groups == [2, 2, 1]
    assert [item["colour"].data[0].item() for item in row["mm_kwargs"]["image"]] == [0, 1, 2, 3, 4]


def test_a_row_with_more_features_than_placeholder_tokens_for_them_fails_alone() -> None:
    @MULTIMODAL_REGISTRY.register_image_feature_input_mapper(lambda context, items: {"image_features": items})
    @INPUT_REGISTRY.register_input_processor(three_tokens)
    class Model(nn.Module):
        pass

    declaration = declaration_of(Model)
    assert declaration is not None
    renderer = DeclaredRenderer(None, declaration)  # type: ignore[arg-type]
    good, more = rendered(renderer, ([IMAGE], [torch.ones(2, 4)]), ([IMAGE], [torch.ones(3, 4)]))
    assert not isinstance(good, RowError)
    assert str(more) == "placeholders: the prompt has 2 placeholder tokens for an image with 3 features"


def test_an_array_mapper_gets_arrays_and_any_other_gets_pil_images() -> None:
    kinds: list[type] = []

    def looking(context: Any, items: list[Any]) -> dict[str, torch.Tensor]:
        kinds.extend(type(item) for item in items)
        return {"x": torch.zeros(len(items), 1)}

    rendered(declared(looking), ([IMAGE], [file_of(1)]))
    rendered(declared(array_mapper(lambda c, i: looking(c, i))), ([IMAGE], [file_of(1)]))
    assert kinds == [Image.Image, np.ndarray]


def test_scaled_decoding_is_refused_where_the_model_maps_pixels_in_a_way_of_its_own() -> None:
    with pytest.raises(DeclarationError, match="scaled_jpeg_decoding"):
        declared(mean_mapper, scaled_jpeg_decoding=True)
