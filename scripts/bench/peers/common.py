"""Shared by the peer scripts: rows as a user's script reads them, settings, and the line that reports times."""

import base64
import io
import json
import os
import sys
import time
from collections.abc import Iterator
from typing import Any

import pyarrow.parquet as pq
from PIL import Image

INPUT, MODEL, OUTPUT = sys.argv[1:4]
SETTINGS: dict[str, Any] = json.loads(os.environ["BENCH_SETTINGS"])
PROMPT: str = SETTINGS["prompt"]
MAX_TOKENS: int = SETTINGS["max_tokens"]
ENGINE: dict[str, Any] = {"model": MODEL, **SETTINGS["engine"]}
SAMPLING: dict[str, Any] = dict(temperature=0.0, max_tokens=MAX_TOKENS, ignore_eos=True)


def rows() -> Iterator[tuple[str, bytes, str]]:
    """Yield (id, encoded image, prompt text) of each row."""
    for batch in pq.ParquetFile(INPUT).iter_batches(256):
        for row in batch.to_pylist():
            yield row["id"], row["image"], PROMPT.replace("{prompt}", row["prompt"])


def decode(encoded: bytes) -> Image.Image:
    return Image.open(io.BytesIO(encoded)).convert("RGB")


def message(image: bytes, prompt: str) -> dict[str, Any]:
    """The chat message of a row: its image as a URL with the file's bytes, and the text of its `prompt`, see `rows`."""
    before, after = PROMPT.split("{prompt}")
    text = prompt.removeprefix(before).removesuffix(after)
    url = f"data:image/jpeg;base64,{base64.b64encode(image).decode()}"
    content = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": text}]
    return {"role": "user", "content": content}


class Times:
    """Times at which the engine was ready, the first row was finished, and all rows were finished."""

    def __init__(self) -> None:
        self._times: dict[str, float] = {}

    def note(self, what: str) -> None:
        self._times.setdefault(what, time.time())

    def tell(self) -> None:
        self.note("end")
        print("TIMES", json.dumps(self._times), flush=True)
        # As run-batch does: tearing down torch and vLLM would only take time.
        os._exit(0)
