"""Renders rows for a model that takes text only."""

from collections.abc import Sequence

from run_batch.model.declaration import RowError
from run_batch.model.rendering.declared_renderer import Prompt
from run_batch.model.rendering.engine_input import EngineInput


class TextRenderer:
    """A model without images."""

    def map(self, prompts: Sequence[Prompt]) -> list[EngineInput | RowError]:
        from vllm.inputs.engine import tokens_input

        return [
            RowError("image_unsupported", "the row has an image, the model takes text only")
            if prompt.images
            else tokens_input(prompt.prompt_token_ids)
            for prompt in prompts
        ]
