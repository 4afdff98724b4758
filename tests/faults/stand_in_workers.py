"""Stand-ins for the worker processes: real processes, forked in milliseconds; a row's prompt is all that they map.

Prompts steer them: `bad` and `missing` fail. `deadly N FILE` kills its worker N times, one byte of FILE for each;
`stuck N FILE` hangs N times. `large N` is mapped to a tensor of N bytes.
"""

import ctypes
import functools
import os
import pickle
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from forked_process import Forked

from run_batch.io.inputs.source import RowBatch
from run_batch.jobs.job.rows import MappedRow, RowFailure
from run_batch.jobs.mapping.worker_main import serve
from run_batch.jobs.mapping.worker_memory import PLENTY, WorkerMemory
from run_batch.jobs.mapping.worker_pool import WorkerPool
from run_batch.jobs.mapping.worker_process import WorkerProcess, worker_environment


@dataclass(frozen=True)
class PromptSpec:
    """Stands in for WorkerSpec: a row's prompt is all that the engine takes.

    Attributes:
        lost_images: where set, no row finds its image; each row is logged there.
        memory: what the pool lets a worker take.
    """

    lost_images: Path | None = None
    memory: WorkerMemory = PLENTY

    def load(self) -> "PromptSpec":
        # A fork has no environment of its own.
        malloc = worker_environment(self.memory)
        for option, name in ((-1, "MALLOC_TRIM_THRESHOLD_"), (-3, "MALLOC_MMAP_THRESHOLD_")):
            ctypes.CDLL(None).mallopt(option, int(malloc[name]))
        return self

    def map_groups(self, batch: RowBatch) -> Iterator[Iterator[MappedRow | RowFailure]]:
        return map(lambda row: iter([row]), self.map(batch))  # which hold no row that has been taken

    def map(self, batch: RowBatch) -> Iterator[MappedRow | RowFailure]:
        if self.lost_images is not None:
            with open(self.lost_images, "a") as log:
                log.writelines(f"{row}\n" for row in range(batch.start, batch.stop))
            return map(no_image, range(batch.start, batch.stop))
        return map(map_row, range(batch.start, batch.stop), batch.records.column("prompt").to_pylist())


def map_row(row: int, prompt: str) -> MappedRow | RowFailure:
    if prompt.startswith("deadly") and is_one_more(prompt):
        os._exit(9)
    if prompt.startswith("stuck") and is_one_more(prompt):
        time.sleep(10_000)
    if prompt == "missing":
        return no_image(row)
    if prompt.startswith("large"):
        return MappedRow(row, (prompt, torch.full((int(prompt.split()[1]),), 1, dtype=torch.uint8)), {})
    return RowFailure(row, "bad_row", "it says so") if prompt == "bad" else MappedRow(row, prompt, {})


def is_one_more(prompt: str) -> bool:
    """Whether the file of a prompt `WHAT TIMES FILE` has fewer bytes than TIMES; adds one then."""
    _, times, file = prompt.split()
    with open(file, "ab") as log:
        if log.tell() >= int(times):
            return False
        log.write(b".")
        return True


def no_image(row: int) -> RowFailure:
    return RowFailure(row, "image_not_found", f"no file {row}.jpg in input.media_root")


def fork_workers(spec: Any, count: int) -> list[WorkerProcess]:
    """Start workers as `start_workers` does, as forks of this process: in milliseconds, with all imports done."""
    workers = []
    for _ in range(count):
        process: Any = Forked(lambda connection: serve(connection, ()))
        process.connection.send_bytes(pickle.dumps(spec))
        workers.append(WorkerProcess(process, process.connection))
    return workers


def forked_pool(spec: PromptSpec) -> Any:
    """What makes a WorkerPool whose workers are forks that map by `spec`, whatever job it is made for."""

    def start(given: Any, count: int) -> list[WorkerProcess]:
        return fork_workers(replace(spec, memory=given.memory), count)

    return functools.partial(WorkerPool, start=start)


ForkedPool = forked_pool(PromptSpec())
