"""Renders rows for a model that declares its inputs, by the functions that it declares.

The worker processes call the renderer with many rows, vLLM's own path (declared_processor.py) with one, so that both
give the same result.
"""

from collections.abc import Callable, Sequence

from vllm.multimodal.processing import InputProcessingContext

from run_batch.model.declaration import PIXELS, Declaration, DeclarationError, RowError, TokenizedPrompt
from run_batch.model.images.decode import Size
from run_batch.model.images.pixels import size_after_resize
from run_batch.model.images.row_image import RowImage
from run_batch.model.rendering.bad_row_isolation import isolate_bad_rows
from run_batch.model.rendering.declared_functions import DeclaredFunctions
from run_batch.model.rendering.engine_input import EngineInput, engine_input
from run_batch.model.rendering.feature_counts import counts_features
from run_batch.model.rendering.image_mapper import ImageMapper


class DeclaredRenderer:
    """Renders rows for one declared model, many at once.

    Attributes:
        most_images: of a row, that the model's mappers take; None for any number.
    """

    adds_special_tokens = True

    def __init__(
        self,
        context: InputProcessingContext,
        declaration: Declaration,
        scaled_jpeg_decoding: bool = False,
        placeholder_hint: str = "",
        max_images: int | None = None,
    ) -> None:
        """Load what renders rows.

        Args:
            scaled_jpeg_decoding: see decode_image.
            placeholder_hint: ends the error of a row with more or fewer placeholders than images.
            max_images: most images of a row that the engine takes.

        Raises:
            DeclarationError: scaled decoding is asked for, and the model's pixel mapper is not a default one.
        """
        self._functions = DeclaredFunctions(context, declaration)
        self._layout, self._placeholder_hint = declaration.layout, placeholder_hint
        self._max_images, self.most_images = max_images, declaration.most_images
        self._counts_features = counts_features(declaration.model_cls)
        needed_size = _needed_size(context, declaration) if scaled_jpeg_decoding else None
        self._images = ImageMapper(self._functions, needed_size)

    def render(
        self, token_ids: Sequence[list[int]], images: Sequence[Sequence[RowImage]]
    ) -> list[EngineInput | RowError]:
        """Render all rows; one that cannot be mapped gives its RowError and leaves the others untouched.

        Args:
            token_ids: of each row, the prompt with one placeholder token per image.
            images: of each row.

        Raises:
            DeclarationError: a mapper or input processor breaks its contract.
        """
        rendered = isolate_bad_rows(self._render_all, list(zip(token_ids, images, strict=True)))
        return [self._hinted(row) if isinstance(row, RowError) else row for row in rendered]

    def _hinted(self, error: RowError) -> RowError:
        return RowError(error.kind, error.message + self._placeholder_hint) if error.kind == "placeholders" else error

    def _render_all(self, rows: Sequence[tuple[list[int], Sequence[RowImage]]]) -> list[EngineInput]:
        for _, images in rows:
            self._check_number(len(images))
        mapped = iter(self._images.map([image for _, images in rows for image in images]))
        prompts = [TokenizedPrompt(ids, tuple(next(mapped) for _ in images)) for ids, images in rows]
        expanded = self._functions.expand(prompts)
        return [engine_input(prompt, self._layout, self._counts_features) for prompt in expanded]

    def _check_number(self, images: int) -> None:
        if self._max_images is not None and images > self._max_images:
            raise RowError(
                "image_processing",
                f"the row has {images} images; engine.limit_mm_per_prompt leaves room for {self._max_images}",
            )


def _needed_size(context: InputProcessingContext, declaration: Declaration) -> Callable[[Size], Size]:
    needed_size = size_after_resize(declaration.mappers.get(PIXELS), context)
    if needed_size is None:
        raise DeclarationError(
            f"preprocess.scaled_jpeg_decoding = true, but {declaration.model_cls.__name__} maps pixels by a "
            "function of its own, which may need all of them"
        )
    return needed_size
