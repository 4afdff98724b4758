"""Renders rows for a model that takes text only."""

from collections.abc import Sequence

from vllm.inputs.engine import tokens_input

from run_batch.model.declaration import RowError
from run_batch.model.images.row_image import RowImage
from run_batch.model.rendering.engine_input import EngineInput


class TextRenderer:
    """Renders rows without images."""

    adds_special_tokens = True

    def render(
        self, token_ids: Sequence[list[int]], images: Sequence[Sequence[RowImage]]
    ) -> list[EngineInput | RowError]:
        """Pass the token ids on; a row that has images gives a RowError."""
        return [
            RowError("image_unsupported", "the row has an image, the model takes text only")
            if row_images
            else tokens_input(ids)
            for ids, row_images in zip(token_ids, images, strict=True)
        ]
