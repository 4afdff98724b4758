"""Renders rows for a model that vLLM ships and that has a bulk mapper.

Rows whose images the bulk mapper takes go through it, many at once. All others (without images, with videos, with
precomputed features, with more or other placeholders than images, with more images than the engine or the mapper takes)
go through vLLM's own processor, which also says what is wrong with them.
"""

from collections.abc import Sequence

from PIL import Image

from run_batch.model.declaration import RowError
from run_batch.model.images.decode import image_size
from run_batch.model.images.features import is_encoded_features
from run_batch.model.images.row_image import EncodedImage, RowImage
from run_batch.model.rendering.declared_renderer import DeclaredRenderer
from run_batch.model.rendering.engine_input import EngineInput
from run_batch.model.rendering.image_placeholders import ImagePlaceholders
from run_batch.model.rendering.row_video import EncodedVideo
from run_batch.model.rendering.vllm_renderer import VllmRenderer

# In all images of one row together: a row with more is left to vLLM's processor, which takes hardly more.
_ROW_PIXELS = 200_000_000


class ShippedRenderer:
    """Renders rows for one model, by its bulk mapper where that takes them.

    Args:
        max_images: most images of a row that the engine and the bulk mapper take.
    """

    def __init__(
        self, bulk: DeclaredRenderer, by_vllm: VllmRenderer, placeholders: ImagePlaceholders, max_images: int
    ) -> None:
        self._bulk, self._by_vllm, self._placeholders, self._max_images = bulk, by_vllm, placeholders, max_images
        self.adds_special_tokens = by_vllm.adds_special_tokens

    def render(
        self,
        token_ids: Sequence[list[int]],
        images: Sequence[Sequence[RowImage]],
        videos: Sequence[Sequence[EncodedVideo]] | None = None,
    ) -> list[EngineInput | RowError]:
        """Render each row; one that cannot be mapped gives its RowError.

        Args:
            videos: of each row; None for rows without any.

        Raises:
            SettingsError: vLLM's processor needs a package that is not installed.
        """
        rows = list(zip(token_ids, images, [()] * len(images) if videos is None else videos, strict=True))
        in_bulk = [not row[2] and self._takes(*row[:2]) for row in rows]
        chosen = [row for row, is_chosen in zip(rows, in_bulk, strict=True) if is_chosen]
        mapped = iter(self._bulk.render([ids for ids, _, _ in chosen], [its for _, its, _ in chosen]))
        return [
            next(mapped) if is_chosen else self._by_vllm.render([row[0]], [row[1]], [row[2]])[0]
            for row, is_chosen in zip(rows, in_bulk, strict=True)
        ]

    def _takes(self, token_ids: list[int], images: Sequence[RowImage]) -> bool:
        if not 0 < len(images) <= self._max_images or not all(map(_has_pixels, images)):
            return False
        # What one image, or two, may have together is below the limit.
        if len(images) > 2 and sum(map(_pixels, images)) > _ROW_PIXELS:
            return False
        try:
            self._placeholders.check(token_ids, len(images))
        except RowError:
            return False
        return True


def _has_pixels(image: RowImage) -> bool:
    if isinstance(image, EncodedImage):
        return not is_encoded_features(image.encoded)
    return isinstance(image, Image.Image)


def _pixels(image: RowImage) -> int:
    """Number of pixels; 0 for a file that cannot be read, which fails its row when it is decoded."""
    width, height = image_size(image.encoded) if isinstance(image, EncodedImage) else image.size
    return int(width * height)
