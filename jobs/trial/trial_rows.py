"""The rows of a trial, read and mapped twice in this process, each time by a mapper that has not seen them."""

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2
import torch

from run_batch.io.inputs.source import RowBatch
from run_batch.jobs.job.errors import JobError
from run_batch.jobs.job.prepare import PreparedJob
from run_batch.jobs.job.row_reader import RowReader
from run_batch.jobs.job.rows import MappedRow, MappedRows
from run_batch.jobs.mapping.mapping_faults import mapping_faults
from run_batch.jobs.mapping.row_mapper import RowMapper
from run_batch.jobs.mapping.row_watch import rows_watched
from run_batch.jobs.mapping.worker_pool import BATCH_ROWS
from run_batch.jobs.trial.image_facts import ImageFacts, image_facts
from run_batch.jobs.trial.named_rows import id_bytes, id_text
from run_batch.jobs.trial.repeated_mapping import differences
from run_batch.model.plugin import announce_plugins, register


@dataclass(slots=True)
class TrialRows:
    """Some rows of a job, mapped.

    Attributes:
        tokenizer: the model's.
        ids: of each row, by its index in the input; as text.
        images: of each row, in the order of its prompt.
        results: one for each row, in their order.
        seconds: that mapping them took, in one thread, when what is done once was done.
    """

    tokenizer: Any
    ids: dict[int, str] = field(default_factory=dict)
    images: dict[int, list[ImageFacts]] = field(default_factory=dict)
    results: MappedRows = field(default_factory=list)
    seconds: float = 0.0

    @property
    def mapped(self) -> list[MappedRow]:
        """The rows that the engine can take."""
        return [result for result in self.results if isinstance(result, MappedRow)]


def map_rows(job: PreparedJob, rows: Sequence[int]) -> TrialRows:
    """Read and map rows.

    Args:
        rows: indices in the input, ascending.

    Raises:
        JobError: the job cannot map rows, or not twice in the same way.
        RunError: the input is damaged.
    """
    config = job.config
    with mapping_faults():
        announce_plugins(config.model.plugins, config.folder)
        register()
        with _one_thread():
            # A mapper keeps what it has mapped lately: only another one maps the same rows again.
            mappers = [RowMapper(config, job.source.schema, job.media_root, job.prompt_column) for _ in range(2)]
            found = TrialRows(mappers[0].tokenizer)
            with rows_watched(config.errors.row_seconds):
                for batch in RowReader(config, job.source, BATCH_ROWS).read(rows):
                    _map_batch(job, batch, mappers, found)
    return found


def _map_batch(job: PreparedJob, batch: RowBatch, mappers: Sequence[RowMapper], found: TrialRows) -> None:
    rows = range(batch.start, batch.stop)
    images = _images(mappers[0], batch)
    ids = batch.row_ids or _ids(batch, job.config.input.id_column)
    first = list(mappers[0].map(batch))
    begun = time.monotonic()
    second = list(mappers[1].map(batch))
    found.seconds += time.monotonic() - begun
    for row, what in differences(first, second).items():
        offset = row - batch.start
        if _digests(images[offset]) != _digests(_images(mappers[0], batch.slice(offset, 1))[0]):
            raise JobError(f"row {ids[offset]!r}: its image is another one each time that it is read")
        raise JobError(
            f"row {ids[offset]!r}: mapping it twice gives {what}. What a job's mappers and input processors give must "
            "depend on the row alone; else a job that is resumed, or run again, gives other texts"
        )
    found.ids.update(zip(rows, ids, strict=True))
    found.images.update(zip(rows, images, strict=True))
    found.results += first


def _ids(batch: RowBatch, column: str | None) -> list[str]:
    return [id_text(row_id) for row_id in id_bytes(_column(batch, column), column).to_pylist()]


def _column(batch: RowBatch, name: str | None) -> Any:
    return batch.records.column(batch.records.schema.names.index(str(name)))


def _images(mapper: RowMapper, batch: RowBatch) -> list[list[ImageFacts]]:
    return [[image_facts(image) for image in images] for images in mapper.images(batch)]


def _digests(images: Sequence[ImageFacts]) -> list[str]:
    return [image.digest for image in images]


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """As in a worker process; besides, a process that has used OpenMP's threads cannot fork one that uses them."""
    threads = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads[0])
        cv2.setNumThreads(threads[1])
