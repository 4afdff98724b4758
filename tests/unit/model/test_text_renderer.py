"""Rows of a model that takes text only."""

from pictures import picture

from run_batch.model.rendering.text_renderer import TextRenderer


def test_text_goes_to_the_engine_as_it_is_and_a_row_with_an_image_fails_alone() -> None:
    text, image, empty = TextRenderer().render([[1, 2], [3], []], [[], [picture(1)], []])
    assert not isinstance(text, Exception) and text["prompt_token_ids"] == [1, 2]
    assert str(image).startswith("image_unsupported: ") and not isinstance(empty, Exception)
