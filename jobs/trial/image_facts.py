"""What the images and videos of a prompt are, before a model's mapper makes tensors of them."""

from dataclasses import dataclass

import torch
from PIL import Image

from run_batch.model.declaration import RowError
from run_batch.model.images.decode import DecodedImage, file_format
from run_batch.model.images.row_image import RowImage, decode_row_image
from run_batch.model.rendering.image_mapper import hash_tensors
from run_batch.model.rendering.row_video import EncodedVideo
from run_batch.model.rendering.video_frames import video_shape


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """One image or video of a prompt.

    Attributes:
        what: file format such as `JPEG`; `video`; `features` for precomputed features; "" for an image that cannot be
            decoded.
        shape: width and height in pixels, upright; of features, their number and their size; empty if not decoded. Of a
            video, frames, width and height of the whole file.
        nbytes: of the file; of features in a column, of their values.
        digest: equal for equal content.
    """

    what: str
    shape: tuple[int, ...]
    nbytes: int
    digest: str

    def __str__(self) -> str:
        if not self.shape:
            return f"{self.nbytes:,} bytes, not decoded"
        size = " x ".join(map(str, self.shape))
        if self.what == "video":
            return f"{self.shape[0]} frames of {self.shape[1]} x {self.shape[2]}, {self.nbytes:,} bytes"
        return f"{size} {self.what}, {self.nbytes:,} bytes"

    @property
    def medium(self) -> str:
        """`image` or `video`."""
        return "video" if self.what == "video" else "image"


def image_facts(image: RowImage | EncodedVideo) -> ImageFacts:
    """Look at one image or video."""
    if isinstance(image, EncodedVideo):
        return ImageFacts("video", video_shape(image), len(image.encoded), image.digest.hex())
    assert not isinstance(image, Image.Image), "rows of an input hold none"
    if isinstance(image, torch.Tensor):
        return ImageFacts("features", tuple(image.shape), image.nbytes, hash_tensors({"": image}))
    encoded, digest = image.encoded, image.digest.hex()
    try:
        decoded = decode_row_image(image)
    except RowError:  # the row's own error says why
        return ImageFacts("", (), len(encoded), digest)
    if isinstance(decoded, DecodedImage):
        return ImageFacts(file_format(encoded), (decoded.width, decoded.height), len(encoded), digest)
    return ImageFacts("features", tuple(decoded.shape), len(encoded), digest)
