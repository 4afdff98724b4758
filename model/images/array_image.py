"""A PIL image around an array of pixels, which Pillow copies only when something asks it to work on them.

A model's processor mostly turns an image into an array at once. By way of Pillow's own memory that takes three copies
of the pixels, with a fourth byte for each of them.
"""

from typing import Any

import numpy as np
from PIL import Image


class ArrayImage(Image.Image):
    """An image in mode RGB.

    Args:
        pixels: uint8 (height, width, 3). Nothing changes it: what Pillow draws goes into a copy.
    """

    def __init__(self, pixels: np.ndarray) -> None:
        super().__init__()
        self._pixels = np.ascontiguousarray(pixels)  # as long as the image: arrays made of it use this memory
        self._is_array = True
        self._mode, self._size = "RGB", (pixels.shape[1], pixels.shape[0])

    @property
    def im(self) -> Any:
        """Pillow's own memory of the pixels, made when it is first asked for; from then on, that counts."""
        if self._is_array and self._im is None:
            self._im, self._is_array = Image.fromarray(self._pixels).im, False
        return Image.Image.im.fget(self)  # type: ignore[attr-defined]

    @im.setter
    def im(self, value: Any) -> None:
        self._im, self._is_array = value, False

    @property
    def __array_interface__(self) -> dict[str, Any]:
        if not self._is_array:
            return super().__array_interface__
        interface = self._pixels.__array_interface__
        return {**interface, "data": (interface["data"][0], True)}  # read only

    def load(self) -> Any:
        """Access to single pixels. Pillow calls this before all that it does; there is nothing to read from a file."""
        return _Pixels(self) if self._is_array else super().load()

    def copy(self) -> Image.Image:
        """An image of its own with the same pixels."""
        return ArrayImage(self._pixels) if self._is_array else super().copy()


class _Pixels:
    """Access to single pixels of an image that Pillow has not copied yet."""

    def __init__(self, image: ArrayImage) -> None:
        self._image = image

    def __getitem__(self, place: tuple[int, int]) -> Any:
        return self._image.im.pixel_access(False)[place]

    def __setitem__(self, place: tuple[int, int], value: Any) -> None:
        self._image.im.pixel_access(False)[place] = value
