"""The prompt of a row on its way: what is known before its images and videos are read, and their places in texts."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from run_batch.jobs.job.config import JobConfig
from run_batch.jobs.job.errors import JobError
from run_batch.jobs.job.prompt_template import PromptTemplate
from run_batch.model.declaration import RowError
from run_batch.model.images.row_image import RowImage
from run_batch.model.prompts.message_parts import MessageImage, MessageVideo
from run_batch.model.prompts.tokenizer import Piece
from run_batch.model.rendering.renderer import Prompt, Renderer
from run_batch.model.rendering.row_video import EncodedVideo

Images: TypeAlias = Sequence[RowImage]
Videos: TypeAlias = Sequence[EncodedVideo]
Item: TypeAlias = Piece | MessageImage | MessageVideo


@dataclass(frozen=True, slots=True)
class PromptDraft:
    """A row's prompt before its images and videos are read.

    Attributes:
        images: those that the prompt itself holds, each a cell of one image, as in the image column.
        videos: those that the prompt itself holds, each a cell of one video.
        finish: makes the prompt of the images of the row's image column, those of `images`, the videos of its video
            column, and those of `videos`. Raises RowError for a row whose images or videos do not fit its prompt.
    """

    images: Sequence[Any]
    videos: Sequence[Any]
    finish: Callable[[Images, Images, Videos, Videos], Prompt]


def fill_template(template: PromptTemplate, row: Mapping[str, Any]) -> list[tuple[str, bool]]:
    """A template filled with a row's columns; see PromptTemplate.fill.

    Raises:
        RowError: `prompt_null`.
    """
    try:
        return template.fill(row)
    except ValueError as error:
        raise RowError("prompt_null", str(error)) from None


def find_places(
    filled: Iterable[tuple[str, bool]], model: Renderer, marker: str | None, kinds: Collection[type[Item]]
) -> list[Item]:
    """A filled template, cut where an image or a video belongs.

    That is where the template's own text holds the model's placeholder, and for images where the row's data holds the
    marker. Placeholders of what a row does not have are left out: a template is written for rows that have it.

    Args:
        filled: text, and whether it is the template's own; see PromptTemplate.fill.
        model: whose placeholders count.
        marker: prompt.image_marker.
        kinds: what the row has: MessageImage, MessageVideo.
    """
    items: list[Item] = []
    numbers: dict[type[Item], int] = {MessageImage: 1, MessageVideo: 1}
    for text, trusted in filled:
        for piece in _split_at_placeholders(text, model, numbers) if trusted else _split_at_marker(text, marker):
            if not isinstance(piece, Piece):
                numbers[type(piece)] += not trusted
                if trusted and type(piece) not in kinds:
                    continue
            items.append(piece)
    return items


def kinds_of(images: Images, videos: Videos) -> set[type[Item]]:
    """What a row has, as `find_places` takes it."""
    return {kind for kind, has_some in ((MessageImage, images), (MessageVideo, videos)) if has_some}


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


def _split_at_marker(text: str, marker: str | None) -> Iterator[Item]:
    for number, piece in enumerate(text.split(marker) if marker else [text]):
        if number:
            yield MessageImage()
        if piece:
            yield Piece(piece, trusted=False)


def _split_at_placeholders(text: str, model: Renderer, numbers: dict[type[Item], int]) -> Iterator[Item]:
    """Cut a template's text at placeholders, the first one first; counts those that it finds in `numbers`."""
    while text:
        wanted: dict[type[MessageImage] | type[MessageVideo], str | None] = {
            MessageImage: model.image_placeholder(numbers[MessageImage]),
            MessageVideo: model.video_placeholder(numbers[MessageVideo]) if model.has_videos else None,
        }
        found = [(text.index(name), kind, name) for kind, name in wanted.items() if name and name in text]
        if not found:
            yield Piece(text, trusted=True)
            return
        start, kind, name = min(found, key=lambda place: place[0])
        if start:
            yield Piece(text[:start], trusted=True)
        yield kind()
        numbers[kind] += 1
        text = text[start + len(name) :]
