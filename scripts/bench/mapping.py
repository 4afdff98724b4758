"""Measures how fast one core maps images: run-batch's worker compared with decoding only, Pillow and transformers.

All candidates process the same images in turns of about a hundred, and the CPU time of this thread is measured, so
other load on the machine affects all of them equally. Rates are images per second on one core.

`--model FOLDER` measures a checkpoint of a model that vLLM ships instead of the benchmark's LLaVA: run-batch's worker,
the same with vLLM's processor (`model.mapper = "vllm"`), and transformers' processor called by hand with each prompt,
where the checkpoint has one.
"""

import argparse
import contextlib
import io
import itertools
import os
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from multiprocessing import Pipe, get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TypeAlias

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from systems import job_file, shipped_job_file
from transformers import AutoImageProcessor, AutoProcessor
from workloads import FOLDER, WORKLOADS, Workload, make_model, make_workload

from run_batch.io.inputs.parquet import ParquetSource
from run_batch.io.inputs.source import RowBatch
from run_batch.jobs.job.config import load_config
from run_batch.jobs.job.rows import RowFailure
from run_batch.jobs.mapping.row_arena import BorrowedArena, RowArena
from run_batch.jobs.mapping.row_mapper import RowMapper
from run_batch.jobs.mapping.shared_memory import receive, send_in_parts
from run_batch.jobs.mapping.worker_main import PART_BYTES
from run_batch.jobs.mapping.worker_memory import PLENTY
from run_batch.jobs.mapping.worker_process import worker_environment
from run_batch.model.checkpoint.settings import ModelSettings
from run_batch.model.images.mapped_memory import map_into
from run_batch.model.images.resize import compile_resize
from run_batch.model.mappers.plane_resize import allow_plane_resize
from run_batch.model.plugin import announce_plugins, register
from run_batch.model.rendering.renderer import Renderer

BATCH_ROWS = 16
# Batches per turn: with fewer, each candidate would run mostly with the CPU caches and heap of the one before it.
TURN_BATCHES = 6
TURNS = 4
# Mapped before the measurement: enough to fill the worker's cache of mapped images (128 MiB), so that memory is reused
# as in a long job.
WARM_UP = Workload("warm-up", 432, 640, 480)
IMAGE_SIZE = 336


Ways: TypeAlias = dict[str, Callable[[pa.RecordBatch], object]]
WHOLE_TASK = "run-batch, whole worker task"


def files(batch: pa.RecordBatch) -> list[bytes]:
    return batch["image"].to_pylist()


def pillow(encoded: bytes) -> Image.Image:
    return Image.open(io.BytesIO(encoded)).convert("RGB")


DECODING: Ways = {
    "decode alone, OpenCV": lambda batch: [
        cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR_RGB) for encoded in files(batch)
    ],
    "decode alone, Pillow": lambda batch: [pillow(encoded) for encoded in files(batch)],
}


def whole_task(mapper: RowMapper) -> Callable[[pa.RecordBatch], None]:
    """What a worker does with a batch: maps its rows, and sends them to another process."""
    ours, theirs = Pipe()
    arena = RowArena(PLENTY.arena_bytes, PLENTY.kept_bytes)
    get_context("fork").Process(target=drain, args=(theirs, arena), daemon=True).start()

    def run(batch: pa.RecordBatch) -> None:
        map_into(arena.allocate)
        rows = list(mapper.map(RowBatch(0, batch)))
        failures = [row for row in rows if isinstance(row, RowFailure)]
        assert not failures, failures[0]
        for _ in send_in_parts(ours, [rows], PART_BYTES, arena):
            pass

    return run


def ways(rows: Path, model: Path) -> Ways:
    folder = FOLDER / "run"
    folder.mkdir(parents=True, exist_ok=True)
    config = load_config(job_file(rows, model, folder))
    schema = ParquetSource(str(rows)).schema
    # One for each candidate: a mapper does not map a repeated image file again.
    mapper, worker = RowMapper(config, schema, None), RowMapper(config, schema, None)
    processor = AutoImageProcessor.from_pretrained(model)

    def resized(image: Image.Image) -> Image.Image:
        """Resize as the mapper does, the shortest edge to the model's size (cropping afterwards costs nothing)."""
        scale = IMAGE_SIZE / min(image.size)
        size = (int(image.width * scale), int(image.height * scale))
        return image.resize(size, Image.Resampling.BICUBIC)

    return {
        **DECODING,
        "Pillow decode and resize": lambda batch: [resized(pillow(encoded)) for encoded in files(batch)],
        "transformers image processor": lambda batch: [
            processor([pillow(encoded)], return_tensors="pt") for encoded in files(batch)
        ],
        "run-batch, mapped rows": lambda batch: list(mapper.map(RowBatch(0, batch))),
        WHOLE_TASK: whole_task(worker),
    }


def ways_of_shipped_model(rows: Path, model: Path, trusted: bool) -> Ways:
    folder = FOLDER / "run"
    folder.mkdir(parents=True, exist_ok=True)
    placeholder = Renderer(ModelSettings(str(model), trust_remote_code=trusted)).image_placeholder(1) or ""
    schema = ParquetSource(str(rows)).schema

    def mapper(choice: str) -> RowMapper:
        config = load_config(shipped_job_file(rows, model, folder, placeholder + "{prompt}", choice, trusted))
        return RowMapper(config, schema, None)

    bulk = mapper("auto")
    print(f"images: {bulk.image_mapping}")
    processor = AutoProcessor.from_pretrained(model, trust_remote_code=trusted)

    def by_hand(batch: pa.RecordBatch) -> None:
        for encoded, prompt in zip(files(batch), batch["prompt"].to_pylist(), strict=True):
            processor(text=[placeholder + prompt], images=[pillow(encoded)], return_tensors="pt")

    # Of a checkpoint without a processor, AutoProcessor gives its tokenizer.
    hand = {"transformers, by hand": by_hand} if hasattr(processor, "image_processor") else {}
    return {
        **DECODING,
        **hand,
        "run-batch, vLLM's processor": whole_task(mapper("vllm")),
        "run-batch, mapped rows": lambda batch: list(bulk.map(RowBatch(0, batch))),
        WHOLE_TASK: whole_task(mapper("auto")),
    }


def drain(connection: Connection, arena: RowArena) -> None:
    """Receive from the other end of the pipe, in a separate process like the worker's."""
    borrowed = BorrowedArena(arena.descriptor, arena.nbytes)
    with contextlib.suppress(EOFError):
        while True:
            receive(connection, borrowed)


def measure(workload: str, model: Path, ways_of: Callable[[Path, Path], Ways]) -> dict[str, float]:
    rows = make_workload(WORKLOADS[workload])
    candidates = ways_of(rows, model)
    seconds: defaultdict[str, float] = defaultdict(float)
    count = 0
    for way in candidates.values():
        for batch in pq.ParquetFile(make_workload(WARM_UP)).iter_batches(BATCH_ROWS):
            way(batch)
    batches = pq.ParquetFile(rows).iter_batches(BATCH_ROWS)
    for _ in range(TURNS):
        turn = list(itertools.islice(batches, TURN_BATCHES))
        for name, way in candidates.items():
            started = time.thread_time()
            for batch in turn:
                way(batch)
            seconds[name] += time.thread_time() - started
        count += sum(batch.num_rows for batch in turn)
    return {name: count / spent for name, spent in seconds.items()}


def become_a_worker() -> None:
    """Give this process the settings of a worker process, for all candidates."""
    environment = worker_environment(PLENTY)
    if not os.environ.keys() >= environment.keys():
        # malloc reads its settings when a process starts.
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **environment})
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    compile_resize()
    allow_plane_resize()
    announce_plugins([], FOLDER)
    register()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="folder of a checkpoint of a model that vLLM ships")
    parser.add_argument("--trust-remote-code", action="store_true", help="of that checkpoint")
    arguments = parser.parse_args()
    become_a_worker()
    if arguments.model is not None:
        ways_of = partial(ways_of_shipped_model, trusted=arguments.trust_remote_code)
        show(f"640x480, {arguments.model.name}", measure("640x480", arguments.model.resolve(), ways_of))
        return
    for workload in ("640x480", "1600x1200", "224-png"):
        show(f"{workload} to {IMAGE_SIZE} px", measure(workload, make_model(IMAGE_SIZE), ways))


def show(title: str, rates: dict[str, float]) -> None:
    print(f"\n{title}, images/s on one core")
    for name, rate in rates.items():
        print(f"{name:32s} {rate:7.0f}   run-batch's worker is at {rates[WHOLE_TASK] / rate:5.2f} of it")


if __name__ == "__main__":
    main()
