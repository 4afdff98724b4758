"""A spec for worker processes that load no model, in a module that those processes can import."""

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa
import torch

from run_batch.io.inputs.source import RowBatch
from run_batch.jobs.job.rows import MappedRow
from run_batch.jobs.mapping.worker_memory import PLENTY, WorkerMemory

BATCH_ROWS = 16


@dataclass(frozen=True)
class LightSpec:
    """Maps each row to its id, the id of the worker's process, and a tensor.

    Attributes:
        load_error: raised instead of loading.
        map_error: raised instead of mapping a batch.
        seconds: duration of mapping a batch.
        tensor_bytes: size of each row's tensor.
        deadly_row: index of a row that kills the worker which maps it.
        memory: what the pool lets a worker take.
    """

    load_error: Exception | None = None
    map_error: Exception | None = None
    seconds: float = 0.0
    tensor_bytes: int = 0
    deadly_row: int | None = None
    memory: WorkerMemory = PLENTY

    def load(self) -> "LightSpec":
        if self.load_error is not None:
            raise self.load_error
        torch.set_num_threads(1)  # as WorkerSpec does: threads of a process that was forked would wait for ever
        return self

    def map_groups(self, batch: RowBatch) -> Iterator[list[MappedRow]]:
        for row in self.map(batch):
            yield [row]

    def map(self, batch: RowBatch) -> Iterator[MappedRow]:
        if self.map_error is not None:
            raise self.map_error
        if self.deadly_row in range(batch.start, batch.stop):
            os._exit(9)
        time.sleep(self.seconds)
        ids = batch.row_ids or []
        tensor = torch.zeros(self.tensor_bytes, dtype=torch.uint8)
        for i, row in enumerate(range(batch.start, batch.stop)):
            yield MappedRow(row, (ids[i], os.getpid(), tensor.clone()), {})


def batch(index: int) -> RowBatch:
    """Batch `index` of an input, with row ids `rows:ROW`."""
    start = index * BATCH_ROWS
    rows = range(start, start + BATCH_ROWS)
    return RowBatch(start, pa.record_batch({"text": [f"text {row}" for row in rows]}), [f"rows:{row}" for row in rows])
