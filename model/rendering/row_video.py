"""A video as a row brings it: the bytes of a file."""

from dataclasses import dataclass

from blake3 import blake3


@dataclass(frozen=True, slots=True)
class EncodedVideo:
    """The bytes of a video file, before frames are decoded.

    Attributes:
        digest: BLAKE3 digest of the bytes, by which a video that comes again is recognized; never that of an image.
    """

    encoded: bytes
    digest: bytes

    @classmethod
    def of(cls, encoded: bytes) -> "EncodedVideo":
        """The video in the bytes of a file."""
        return cls(encoded, blake3(encoded, derive_key_context="run-batch video").digest())
