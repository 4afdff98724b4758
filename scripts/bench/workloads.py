"""Creates the benchmark's inputs: data sets of photographs as Parquet, and a small LLaVA with random weights.

The model is small so that the speed of the engine on a CPU, relative to image decoding, is that of a real model on a
GPU.
"""

import random
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import photographs
import pyarrow as pa
import pyarrow.parquet as pq

ROOT = Path(__file__).resolve().parent.parent.parent
FOLDER = ROOT / ".bench"
QUESTIONS = ("what is this?", "is it day or night?", "how many people are there?", "describe the picture.")
PROMPT = "USER: <image>\n{prompt} ASSISTANT:"


@dataclass(frozen=True, slots=True)
class Workload:
    """A data set.

    Attributes:
        repeats: number of consecutive rows that have the same image.
        large: every so many rows, the image has 12 megapixels; 0 for never.
        model: name of the model in model_settings.py.
        gpu: runs on a GPU only, so it is not among what runs by default.
    """

    name: str
    rows: int
    width: int
    height: int
    form: str = "JPEG"
    repeats: int = 1
    large: int = 0
    model: str = "llava"
    gpu: bool = False

    @property
    def path(self) -> Path:
        return FOLDER / f"{self.name}.parquet"


WORKLOADS = {
    workload.name: workload
    for workload in (
        Workload("640x480", 1000, 640, 480),
        Workload("1600x1200", 400, 1600, 1200),
        Workload("repeated-x8", 1000, 640, 480, repeats=8),
        Workload("224-png", 5000, 224, 224, form="PNG"),
        Workload("mixed", 1000, 640, 480, large=100),
        Workload("qwen2.5-vl", 1000, 640, 480, model="qwen2.5-vl"),
        Workload("qwen2.5-vl-3b", 4000, 640, 480, model="qwen2.5-vl-3b", gpu=True),
        Workload("qwen2.5-vl-3b-small", 8000, 640, 480, model="qwen2.5-vl-3b-small", gpu=True),
    )
}


def make_workload(workload: Workload) -> Path:
    """Write the data set, unless it exists; return its path."""
    if workload.path.exists():
        return workload.path
    print(f"making {workload.path} ...", file=sys.stderr, flush=True)
    sources = photographs.load_photographs(FOLDER / "photographs")
    rng = random.Random(workload.name)
    workload.path.parent.mkdir(exist_ok=True)
    temporary = workload.path.with_suffix(".tmp")
    schema = pa.schema([("id", pa.string()), ("image", pa.binary()), ("prompt", pa.string())])
    with pq.ParquetWriter(temporary, schema) as writer:
        batch: list[dict[str, object]] = []
        for row, image in enumerate(_images(workload, sources, rng)):
            batch.append({"id": f"r{row:06d}", "image": image, "prompt": QUESTIONS[row % len(QUESTIONS)]})
            if len(batch) == 100 or row == workload.rows - 1:
                writer.write_table(pa.Table.from_pylist(batch, schema))
                batch = []
    temporary.rename(workload.path)
    return workload.path


def _images(workload: Workload, sources: list, rng: random.Random) -> Iterator[bytes]:
    image = b""
    seen: set[int] = set()
    for row in range(workload.rows):
        if row % workload.repeats == 0:
            is_large = workload.large and row % workload.large == workload.large - 1
            size = (4000, 3000) if is_large else (workload.width, workload.height)
            # A photograph that is hardly larger than the window has few positions for it, so images can repeat.
            while not image or hash(image) in seen:
                image = photographs.encode(photographs.compose(sources, *size, rng), workload.form)
            seen.add(hash(image))
        yield image


def make_model(image_size: int = 56) -> Path:
    """Write a LLaVA of 0.2 million parameters for images of `image_size` pixels, unless it exists; return its path."""
    folder = FOLDER / f"model-{image_size}"
    if (folder / "preprocessor_config.json").exists():
        return folder
    sys.path.insert(0, str(ROOT / "tests"))
    from checkpoints import PREPROCESSOR, save_llava
    from transformers import CLIPVisionConfig

    vision = CLIPVisionConfig(
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=image_size,
        patch_size=image_size // 4,
        projection_dim=64,
    )
    size = {"shortest_edge": image_size}
    crop = {"height": image_size, "width": image_size}
    save_llava(folder, preprocessor={**PREPROCESSOR, "size": size, "crop_size": crop}, vision_config=vision)
    return folder
