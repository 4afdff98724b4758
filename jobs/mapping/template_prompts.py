"""Prompts by prompt.template alone: the template's text is the whole prompt."""

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from run_batch.jobs.job.config import JobConfig
from run_batch.jobs.job.errors import JobError
from run_batch.jobs.job.prompt_template import parse_template
from run_batch.jobs.mapping.prompt_draft import (
    Images,
    PromptDraft,
    Videos,
    fill_template,
    find_places,
    kinds_of,
    refuse_needless_placeholder,
)
from run_batch.model.declaration import RowError
from run_batch.model.prompts.message_parts import MessageImage, MessageVideo
from run_batch.model.prompts.tokenizer import Piece
from run_batch.model.rendering.renderer import Prompt, Renderer


class TemplatePrompts:
    """Fills in the template of one job."""

    # The tokenizer's own BOS and the like stand before the template.
    add_special_tokens = True

    def __init__(self, config: JobConfig, schema: pa.Schema, model: Renderer) -> None:
        """Check the template against the input's columns and the model.

        Raises:
            JobError: it does not fit.
        """
        self._marker, self._model = config.prompt.image_marker, model
        self._template = parse_template(config.prompt.template, config.input.prompt_column, schema)
        placeholder, literal = model.image_placeholder(1), self._template.literal_text
        refuse_needless_placeholder(config, placeholder, literal)
        video = model.video_placeholder(1)
        if video is not None and video not in literal:
            raise JobError(
                f"prompt.template has no {video}, the model's video placeholder, so the videos of column "
                f"{config.input.video_column} would not be seen; add it where the video belongs"
            )
        is_needed = config.input.image_column and self._marker is None
        if is_needed and placeholder is not None and placeholder not in literal:
            raise JobError(
                f"prompt.template has no {placeholder}, the model's image placeholder, so the images of column "
                f"{config.input.image_column} would not be seen; add it where the image belongs, or name the text in "
                "the data that stands for an image by prompt.image_marker"
            )

    def draft(self, row: Mapping[str, Any]) -> PromptDraft:
        """Begin the prompt of a row; it holds no images of its own.

        Raises:
            RowError: `prompt_null`.
        """
        filled = fill_template(self._template, row)
        return PromptDraft((), (), lambda images, _, videos, __: self._finish(filled, images, videos))

    def _finish(self, filled: list[tuple[str, bool]], images: Images, videos: Videos) -> Prompt:
        pieces: list[Piece] = []
        numbers = {MessageImage: 0, MessageVideo: 0}
        placeholders = {MessageImage: self._model.image_placeholder, MessageVideo: self._model.video_placeholder}
        for item in find_places(filled, self._model, self._marker, kinds_of(images, videos)):
            if not isinstance(item, Piece):
                numbers[type(item)] += 1
                item = Piece(placeholders[type(item)](numbers[type(item)]) or "", trusted=True)
            pieces.append(item)
        number = numbers[MessageImage]
        if self._marker is not None and number != len(images):
            raise RowError("placeholders", f"the prompt has {number} places for images, the row has {len(images)}")
        return Prompt(pieces, images, videos)
