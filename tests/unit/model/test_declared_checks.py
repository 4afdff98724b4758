"""What a plugin's functions give is checked: the text of prompts stays, and tensors hold finite numbers."""

from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image
from torch import nn

from run_batch.model import (
    INPUT_REGISTRY,
    MULTIMODAL_REGISTRY,
    DeclarationError,
    PlaceholderRange,
    RowError,
    TokenizedPrompt,
)
from run_batch.model.declaration import declaration_of
from run_batch.model.rendering.declared_renderer import DeclaredRenderer

pytestmark = pytest.mark.usefixtures("declared_for_one_test")

IMAGE, START, END = 9, 7, 8


def brightness(context: Any, items: list[Image.Image]) -> dict[str, torch.Tensor]:
    """The mean of each image; of a black one, one divided by zero."""
    means = torch.tensor([float(item.getpixel((0, 0))[0]) for item in items])
    return {"mean": means, "inverse": 1 / means, "size": torch.ones(len(items), 2, dtype=torch.int64)}


def three_tokens(context: Any, prompts: list[TokenizedPrompt]) -> list[TokenizedPrompt]:
    return [prompt.expand(IMAGE, [[IMAGE, IMAGE, 5]] * len(prompt.items), embed_token_id=IMAGE) for prompt in prompts]


def declared(mapper: Any = brightness, processor: Any = three_tokens, **options: Any) -> DeclaredRenderer:
    @MULTIMODAL_REGISTRY.register_image_feature_input_mapper(lambda context, items: {"image_features": items})
    @MULTIMODAL_REGISTRY.register_image_pixel_input_mapper(mapper)
    @INPUT_REGISTRY.register_input_processor(processor, **options)
    class Model(nn.Module):
        pass

    declaration = declaration_of(Model)
    assert declaration is not None
    tokenizer = SimpleNamespace(decode=lambda ids: f"word{ids[0]}")
    return DeclaredRenderer(SimpleNamespace(tokenizer=tokenizer), declaration)  # type: ignore[arg-type]


def gray(value: int) -> Image.Image:
    return Image.new("RGB", (4, 4), (value, value, value))


def changed(change: Any) -> Any:
    """An input processor that expands prompts, and then changes the tokens."""

    def processor(context: Any, prompts: list[TokenizedPrompt]) -> list[TokenizedPrompt]:
        return [change(prompt) for prompt in three_tokens(context, prompts)]

    return processor


def cut_after_image(prompt: TokenizedPrompt) -> TokenizedPrompt:
    end = max((r.offset + r.length for r in prompt.placeholders), default=0)
    return replace(prompt, prompt_token_ids=prompt.prompt_token_ids[:end])


def swap_last(prompt: TokenizedPrompt) -> TokenizedPrompt:
    return replace(prompt, prompt_token_ids=[*prompt.prompt_token_ids[:-2], *prompt.prompt_token_ids[:-3:-1]])


def add_last(prompt: TokenizedPrompt) -> TokenizedPrompt:
    return replace(prompt, prompt_token_ids=[*prompt.prompt_token_ids, 66])


def drop_first(prompt: TokenizedPrompt) -> TokenizedPrompt:
    moved = tuple(replace(r, offset=r.offset - 1) for r in prompt.placeholders)
    return replace(prompt, prompt_token_ids=prompt.prompt_token_ids[1:], placeholders=moved)


def between(prompt: TokenizedPrompt) -> TokenizedPrompt:
    """Drops the token between two images."""
    ids, (first, second) = prompt.prompt_token_ids, prompt.placeholders
    moved = replace(second, offset=second.offset - 1)
    return replace(
        prompt, prompt_token_ids=[*ids[: second.offset - 1], *ids[second.offset :]], placeholders=(first, moved)
    )


ONE, TWO = [1, 2, IMAGE, 3, 4], [1, IMAGE, 2, IMAGE, 3]


@pytest.mark.parametrize(
    ("change", "ids", "says"),
    [
        (cut_after_image, ONE, ("3 of the prompt is 3 ('word3')", "5 of what it gave, in the same place, is missing")),
        (swap_last, ONE, ("3 of the prompt is 3 ('word3')", "5 of what it gave, in the same place, is 4 ('word4')")),
        (add_last, ONE, ("5 of the prompt is missing", "7 of what it gave, in the same place, is 66 ('word66')")),
        (drop_first, ONE, ("0 of the prompt is 1 ('word1')", "0 of what it gave, in the same place, is 2 ('word2')")),
        (between, TWO, ("2 of the prompt is 2 ('word2')", "7 of what it gave, in the same place, is 3 ('word3')")),
        (add_last, [1, 2], ("2 of the prompt is missing", "2 of what it gave, in the same place, is 66 ('word66')")),
    ],
)
def test_an_input_processor_that_changes_text_stops_the_job_unless_it_says_so(
    change: Any, ids: list[int], says: tuple[str, str]
) -> None:
    processor = changed(change)
    row = ([*ids], [gray(k + 1) for k in range(ids.count(IMAGE))])
    with pytest.raises(DeclarationError) as caught:
        declared(processor=processor).render([row[0]], [row[1]])
    message = str(caught.value)
    place = f"test_declared_checks.py, line {processor.__code__.co_firstlineno})"
    assert message.startswith("Model's input processor (") and place in message
    assert f"token {says[0]}, and token {says[1]}. Tokens" in message
    assert "changes_text=True" in message and "\n" not in message
    (rendered,) = declared(processor=processor, changes_text=True).render([row[0]], [row[1]])
    assert not isinstance(rendered, RowError)


def placed(*ranges: tuple[int, int], after: Sequence[int]) -> Any:
    places = tuple(PlaceholderRange(*r) for r in ranges)
    return lambda context, prompts: [replace(p, prompt_token_ids=[*after], placeholders=places) for p in prompts]


@pytest.mark.parametrize(
    ("before", "ranges", "after"),
    [
        # One token of the prompt is replaced; the range may be as short.
        ([1, IMAGE, 2], [(1, 1)], [1, IMAGE, 2]),
        ([IMAGE, IMAGE], [(0, 2), (2, 3)], [IMAGE] * 5),
        # The placeholder token itself does not stay.
        ([1, IMAGE, 2], [(1, 2)], [1, 55, 55, 2]),
        # None is: the prompt of this model needs no placeholder.
        ([1, 2], [(0, 3)], [IMAGE, IMAGE, IMAGE, 1, 2]),
        ([1, 2], [(2, 3)], [1, 2, IMAGE, IMAGE, IMAGE]),
        # Several are, which are all in the range.
        ([1, START, IMAGE, END, 2], [(1, 4)], [1, START, IMAGE, IMAGE, END, 2]),
        ([START, IMAGE, END, START, IMAGE, END], [(0, 4), (4, 3)], [START, IMAGE, IMAGE, END, START, IMAGE, END]),
    ],
)
def test_tokens_in_a_placeholders_place_are_no_change_of_text(
    before: list[int], ranges: list[tuple[int, int]], after: list[int]
) -> None:
    renderer = declared(processor=placed(*ranges, after=after))
    (rendered,) = renderer.render([before], [[gray(k + 1) for k in range(len(ranges))]])
    assert rendered["prompt_token_ids"] == after  # type: ignore[index]


def rows(*values: int) -> Any:
    return [[IMAGE] for _ in values], [[gray(value)] for value in values]


def test_an_image_for_which_a_mapper_gives_no_finite_number_fails_its_row_alone() -> None:
    for values in ((1, 0, 2), (0, 1, 2), (0,)):
        rendered = declared().render(*rows(*values))
        for value, row in zip(values, rendered, strict=True):
            assert isinstance(row, RowError) == (value == 0)
            if value == 0:
                assert str(row).startswith("image_processing: Model's input mapper for image_pixels (")
                assert str(row).endswith("gave inverse with NaN or infinite values")


def test_a_mapper_that_gives_no_finite_number_at_all_stops_the_job() -> None:
    for given in (torch.full((6, 3), torch.nan), [torch.tensor([1.0, torch.inf])] * 6, torch.full((6, 1), -torch.inf)):
        renderer = declared(lambda context, items, given=given: {"pixel_values": given[: len(items)]})
        with pytest.raises(DeclarationError, match="NaN or infinite values for each of the first"):
            renderer.render(*rows(1, 2, 3, 4, 5, 6))


def test_a_mapper_that_fails_late_does_not_stop_the_job() -> None:
    renderer = declared()
    renderer.render(*rows(1))
    assert all(isinstance(row, RowError) for row in renderer.render(*rows(*[0] * 20)))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_large_values_are_finite(dtype: torch.dtype) -> None:
    large = torch.full((1, 1000), torch.finfo(dtype).max, dtype=dtype)
    (rendered,) = declared(lambda context, items: {"x": large}).render(*rows(1))
    assert not isinstance(rendered, RowError)


def test_features_that_come_with_a_row_fail_the_row() -> None:
    features = torch.ones(2, 4)
    good, bad = declared().render([[IMAGE], [IMAGE]], [[features], [features * torch.nan]])
    assert not isinstance(good, RowError)
    assert str(bad) == "features: image features hold NaN or infinite values"
