"""What a bad row is, and how kinds of them are declared."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from pictures import encoded, picture
from PIL import Image

Item = dict[str, Any] | None
IMAGE_TYPE = pa.list_(pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
QUESTION = b"is it even?"
HIDDEN_SIZE = 96


@dataclass(frozen=True, slots=True)
class BadRow:
    """One row that is not like the others.

    Attributes:
        kinds: the kinds of error that it may give; empty where it works; `refused` is the engine's word alone.
        images: its images, as structs of bytes and path; None for null.
        prompt: bytes, as they may be no UTF-8; None for null.
        same_as: the picture that the model sees, where the row works in spite of its looks.
    """

    kinds: tuple[str, ...]
    images: list[Item] | None
    prompt: bytes | None = QUESTION
    sampling: str | None = None
    same_as: Image.Image | None = None


Make = Callable[[random.Random], BadRow]
CASES: dict[str, Make] = {}


def case(name: str, make: Make) -> None:
    """Declare one kind of row."""
    assert name not in CASES, name
    CASES[name] = make


def good_image(rng: random.Random) -> bytes:
    return encoded(picture(rng.randrange(1 << 30), (rng.randrange(20, 90), rng.randrange(20, 90))))


def of_bytes(content: bytes) -> list[Item]:
    return [{"bytes": content, "path": None}]


def of_path(path: str) -> list[Item]:
    return [{"bytes": None, "path": path}]


def columns(rows: Sequence[BadRow]) -> pa.Table:
    """Rows as the columns image, prompt and own; text is taken as it is, UTF-8 or not."""
    prompts = pa.array([row.prompt for row in rows], pa.binary())
    return pa.table(
        {
            "image": pa.array([row.images for row in rows], IMAGE_TYPE),
            "prompt": pa.Array.from_buffers(pa.string(), len(rows), prompts.buffers(), prompts.null_count),
            "own": pa.array([row.sampling for row in rows], pa.string()),
        }
    )
