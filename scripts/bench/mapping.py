"""Measures how fast one core maps images: run-batch's worker compared with decoding only, Pillow and transformers.

All candidates process the same images in turns of about a hundred, and the CPU time of this thread is measured, so
other load on the machine affects all of them equally. Rates are images per second on one core.
"""

import contextlib
import io
import itertools
import os
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from multiprocessing import Pipe, get_context
from multiprocessing.connection import Connection
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from systems import job_file
from transformers import AutoImageProcessor
from workloads import FOLDER, WORKLOADS, Workload, make_model, make_workload

from run_batch.io.inputs.parquet import ParquetSource
from run_batch.io.inputs.source import RowBatch
from run_batch.jobs.job.config import load_config
from run_batch.jobs.job.rows import RowFailure
from run_batch.jobs.mapping.row_mapper import RowMapper
from run_batch.jobs.mapping.shared_memory import receive, send
from run_batch.jobs.mapping.worker_memory import PLENTY
from run_batch.jobs.mapping.worker_process import worker_environment
from run_batch.model.images.resize import compile_resize
from run_batch.model.plugin import announce_plugins, register

BATCH_ROWS = 16
# Batches per turn: with fewer, each candidate would run mostly with the CPU caches and heap of the one before it.
TURN_BATCHES = 6
TURNS = 4
# Mapped before the measurement: enough to fill the worker's cache of mapped images (128 MiB), so that memory is reused
# as in a long job.
WARM_UP = Workload("warm-up", 432, 640, 480)
IMAGE_SIZE = 336


def ways(rows: Path, model: Path) -> dict[str, Callable[[pa.RecordBatch], object]]:
    folder = FOLDER / "run"
    folder.mkdir(parents=True, exist_ok=True)
    config = load_config(job_file(rows, model, folder))
    announce_plugins([], folder)
    register()
    schema = ParquetSource(str(rows)).schema
    # One for each candidate: a mapper does not map a repeated image file again.
    mapper, worker = RowMapper(config, schema, None), RowMapper(config, schema, None)
    processor = AutoImageProcessor.from_pretrained(model)
    ours, theirs = Pipe()
    get_context("fork").Process(target=_drain, args=(theirs,), daemon=True).start()

    def files(batch: pa.RecordBatch) -> list[bytes]:
        return batch["image"].to_pylist()

    def pillow(encoded: bytes) -> Image.Image:
        return Image.open(io.BytesIO(encoded)).convert("RGB")

    def resized(image: Image.Image) -> Image.Image:
        """Resize as the mapper does, the shortest edge to the model's size (cropping afterwards costs nothing)."""
        scale = IMAGE_SIZE / min(image.size)
        size = (int(image.width * scale), int(image.height * scale))
        return image.resize(size, Image.Resampling.BICUBIC)

    def whole_task(batch: pa.RecordBatch) -> None:
        rows = list(worker.map(RowBatch(0, batch)))
        failures = [row for row in rows if isinstance(row, RowFailure)]
        assert not failures, failures[0]
        send(ours, rows)

    return {
        "decode alone, OpenCV": lambda batch: [
            cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR_RGB) for encoded in files(batch)
        ],
        "decode alone, Pillow": lambda batch: [pillow(encoded) for encoded in files(batch)],
        "Pillow decode and resize": lambda batch: [resized(pillow(encoded)) for encoded in files(batch)],
        "transformers image processor": lambda batch: [
            processor([pillow(encoded)], return_tensors="pt") for encoded in files(batch)
        ],
        "run-batch, mapped rows": lambda batch: list(mapper.map(RowBatch(0, batch))),
        "run-batch, whole worker task": whole_task,
    }


def _drain(connection: Connection) -> None:
    """Receive from the other end of the pipe, in a separate process like the worker's."""
    with contextlib.suppress(EOFError):
        while True:
            receive(connection)


def measure(workload: str, model: Path) -> dict[str, float]:
    rows = make_workload(WORKLOADS[workload])
    candidates = ways(rows, model)
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


def main() -> None:
    environment = worker_environment(PLENTY)
    if not os.environ.keys() >= environment.keys():
        # malloc reads its settings when a process starts. All candidates use the worker's.
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **environment})
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    compile_resize()
    model = make_model(IMAGE_SIZE)
    for workload in ("640x480", "1600x1200", "224-png"):
        rates = measure(workload, model)
        ours = rates["run-batch, whole worker task"]
        print(f"\n{workload} to {IMAGE_SIZE} px, images/s on one core")
        for name, rate in rates.items():
            print(f"{name:32s} {rate:7.0f}   run-batch's worker is at {ours / rate:5.2f} of it")


if __name__ == "__main__":
    main()
