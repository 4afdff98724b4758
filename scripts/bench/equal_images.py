"""Measures what a row costs a worker: images that differ, and 8 questions about each image.

LLaVA's declared mapper and vLLM's own processor of Qwen2.5-VL map 640x480, InternVL's cuts 1600x1200 into 13 tiles. The
checkpoints are tiny: weights are never read. By hand is Pillow and the processor of transformers, image by image, which
sends nothing. All candidates take turns, and the CPU time of this thread is measured.
"""

import gc
import io
import json
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from itertools import chain, product
from multiprocessing import Pipe, get_context
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from mapping import IMAGE_SIZE, become_a_worker, drain
from PIL import Image
from workloads import FOLDER, PROMPT, ROOT, Workload, make_model, make_workload

from run_batch.io.inputs.source import RowBatch
from run_batch.jobs.job.config import parse_config
from run_batch.jobs.mapping import shared_memory
from run_batch.jobs.mapping.row_arena import RowArena
from run_batch.jobs.mapping.row_mapper import RowMapper
from run_batch.jobs.mapping.worker_main import PART_BYTES
from run_batch.jobs.mapping.worker_memory import PLENTY
from run_batch.model.images.mapped_memory import map_into

BATCH_ROWS = 16
TURNS = 4
REPEATS = 8
# Batches per turn, and the images' width and height.
MODELS = {
    "llava": (6, 640, 480),
    "qwen2_5_vl": (6, 640, 480),
    "internvl": (1, 1600, 1200),
}


def make_checkpoint(family: str) -> Path:
    """Write a tiny checkpoint, unless it exists; InternVL's gets tiles of 448 pixels and 256 tokens."""
    if family == "llava":
        return make_model(IMAGE_SIZE)
    folder = FOLDER / family
    if not (folder / "config.json").exists():
        sys.path.insert(0, str(ROOT / "tests"))
        from built_in_families import save_family

        save_family(folder, family)
        if family == "internvl":
            path = folder / "processor_config.json"
            config = json.loads(path.read_text())
            config["image_processor"]["size"], config["image_seq_length"] = {"height": 448, "width": 448}, 256
            path.write_text(json.dumps(config))
    return folder


def make_rows(family: str, repeats: int) -> list[pa.RecordBatch]:
    """Batches of rows for the warm-up and all turns, with each image in `repeats` rows."""
    batches, width, height = MODELS[family]
    rows = BATCH_ROWS * batches * (TURNS + 1)
    path = make_workload(Workload(f"{width}x{height}-{rows}-x{repeats}", rows, width, height, repeats=repeats))
    return list(pq.ParquetFile(path).iter_batches(BATCH_ROWS))


def has_chat(model: Path) -> bool:
    """Whether a checkpoint has a chat template; LLaVA's has none, nor a processor of its own."""
    return (model / "chat_template.jinja").exists()


def worker(model: Path, schema: pa.Schema, sends: bool = True) -> Callable[[pa.RecordBatch], int]:
    """What a worker process does with a batch; gives the bytes that it sends to the engine's process."""
    tables = {
        "input": {"path": "rows", "id_column": "id"},
        "prompt": {"chat": True} if has_chat(model) else {"template": PROMPT},
        "model": {"path": str(model)},
        "engine": {"dtype": "float32"},
        "output": {"path": "out"},
    }
    mapper = RowMapper(parse_config(tables, FOLDER), schema, None)
    ours, theirs = Pipe()
    arena = RowArena(PLENTY.arena_bytes, PLENTY.kept_bytes)
    get_context("fork").Process(target=drain, args=(theirs, arena), daemon=True).start()

    def task(batch: pa.RecordBatch) -> int:
        map_into(arena.allocate)
        groups = mapper.map_groups(RowBatch(0, batch))
        if not sends:
            for _ in chain.from_iterable(groups):
                pass
            return 0
        return sum(nbytes for _, nbytes in shared_memory.send_in_parts(ours, groups, PART_BYTES, arena))

    return task


def by_hand(model: Path) -> Callable[[pa.RecordBatch], int]:
    from transformers import AutoProcessor

    processor = AutoProcessor.from_pretrained(model)

    def task(batch: pa.RecordBatch) -> int:
        for row in batch.to_pylist():
            content = [{"type": "image"}, {"type": "text", "text": row["prompt"]}]
            text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
            image = Image.open(io.BytesIO(row["image"])).convert("RGB")
            processor(text=[text], images=[image], return_tensors="pt")
        return 0

    return task


def measure(family: str) -> dict[str, tuple[float, float]]:
    """Rows per second and megabytes sent per row, by candidate."""
    model, each = make_checkpoint(family), MODELS[family][0]
    once, repeated = make_rows(family, 1), make_rows(family, REPEATS)
    hand = {"by hand": (by_hand(model), once)} if has_chat(model) else {}
    candidates = hand | {
        "they differ, unsent": (worker(model, once[0].schema, sends=False), once),
        "images that differ": (worker(model, once[0].schema), once),
        f"{REPEATS} questions an image": (worker(model, once[0].schema), repeated),
    }
    gc.freeze()  # as a worker does
    seconds: defaultdict[str, float] = defaultdict(float)
    sent: defaultdict[str, int] = defaultdict(int)
    for turn, name in product(range(TURNS + 1), candidates):
        task, batches = candidates[name]
        began = time.thread_time()
        nbytes = sum(map(task, batches[turn * each : (turn + 1) * each]))
        if turn:  # the first one warms up
            seconds[name] += time.thread_time() - began
            sent[name] += nbytes
    rows = TURNS * each * BATCH_ROWS
    return {name: (rows / seconds[name], sent[name] / rows / 1e6) for name in candidates}


def main() -> None:
    become_a_worker()
    for family in MODELS:
        rates = measure(family)
        differ = rates["images that differ"][0]
        print(f"\n{family}, rows/s on one core, their ratio to those of images that differ, MB sent per row")
        for name, (rate, megabytes) in rates.items():
            print(f"{name:24s} {rate:7.0f} {rate / differ:7.2f} {megabytes:7.2f}")


if __name__ == "__main__":
    main()
