"""The prompt of a row on its way: what is known before the row's images are read, and the places of images in texts."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from run_batch.jobs.job.config import JobConfig
from run_batch.jobs.job.errors import JobError
from run_batch.jobs.job.prompt_template import PromptTemplate
from run_batch.model.declaration import RowError
from run_batch.model.images.row_image import RowImage
from run_batch.model.prompts.messages import MessageImage
from run_batch.model.prompts.tokenizer import Piece
from run_batch.model.rendering.renderer import Prompt

Images: TypeAlias = Sequence[RowImage]

# The text that stands for the k-th image of a prompt, from 1; None where the model's prompts need none.
Placeholder: TypeAlias = Callable[[int], str | None]


@dataclass(frozen=True, slots=True)
class PromptDraft:
    """A row's prompt before its images are read.

    Attributes:
        cells: images that the prompt itself holds, each a cell of one image, as in the image column.
        finish: makes the prompt of the images of the row's image column, and of those of `cells`.
            Raises RowError for a row whose images do not fit its prompt.
    """

    cells: Sequence[Any]
    finish: Callable[[Images, Images], Prompt]


def fill_template(template: PromptTemplate, row: Mapping[str, Any]) -> list[tuple[str, bool]]:
    """A template filled with a row's columns; see PromptTemplate.fill.

    Raises:
        RowError: `prompt_null`.
    """
    try:
        return template.fill(row)
    except ValueError as error:
        raise RowError("prompt_null", str(error)) from None


def find_images(
    filled: Iterable[tuple[str, bool]], placeholder: Placeholder, marker: str | None, has_images: bool
) -> list[Piece | MessageImage]:
    """A filled template, cut where an image belongs.

    That is where the template's own text holds the model's placeholder, and where the row's data holds the marker.
    For a row without images, the template's placeholders are left out: it is written for rows that have images.

    Args:
        filled: text, and whether it is the template's own; see PromptTemplate.fill.
        marker: prompt.image_marker.
        has_images: whether the row has images.
    """
    items: list[Piece | MessageImage] = []
    number = 1
    for text, trusted in filled:
        for piece in _split_at_placeholders(text, placeholder, number) if trusted else _split_at_marker(text, marker):
            if isinstance(piece, MessageImage):
                number += 1
                if trusted and not has_images:
                    continue
            items.append(piece)
    return items


def refuse_needless_placeholder(config: JobConfig, placeholder: str | None, literal_text: str) -> None:
    """Refuse a template with a place for an image in a job whose rows have none.

    Raises:
        JobError: it names the placeholder.
    """
    if not config.input.image_column and placeholder is not None and placeholder in literal_text:
        raise JobError(
            f'prompt.template holds {placeholder}, the model\'s image placeholder, and input.image_column = "": name '
            "the column of images, or take the placeholder out"
        )


def _split_at_marker(text: str, marker: str | None) -> Iterator[Piece | MessageImage]:
    for number, piece in enumerate(text.split(marker) if marker else [text]):
        if number:
            yield MessageImage()
        if piece:
            yield Piece(piece, trusted=False)


def _split_at_placeholders(text: str, placeholder: Placeholder, number: int) -> Iterator[Piece | MessageImage]:
    while text:
        wanted = placeholder(number)
        before, found, text = text.partition(wanted) if wanted else (text, "", "")
        if before:
            yield Piece(before, trusted=True)
        if found:
            yield MessageImage()
            number += 1
