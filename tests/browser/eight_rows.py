"""The page of a job of eight rows with images, and what stands in it."""

from collections.abc import Callable
from pathlib import Path

import committed_jobs
import pytest
from pictures import encoded, picture

from run_batch.jobs.job.rows import Generation, RowFailure, RowResult
from run_batch.jobs.watch.job_folder import JobFolder
from run_batch.jobs.watch.report import write_report

PHONE, DESK = (360, 740), (1280, 900)
SIZES = {"phone": PHONE, "tablet": (768, 1024), "desk": DESK, "wide": (2560, 1200)}
ANSWERS = ["cat", "dog", "", "", "a horse of another colour", "cat", "emu", "fox"]


def answer(row: int) -> RowResult:
    if row in (2, 3):
        return RowFailure(row, "image_decode", "not an image")
    return Generation(row, (ANSWERS[row],), "length" if row == 4 else "stop", 10 - row, len(ANSWERS[row]))


def report(folder: Path, ids: list[str], answers: Callable[[int], RowResult], **columns: list[str]) -> Path:
    """The page of a job of eight rows with images."""
    images = [encoded(picture(i, (600, 400)), "PNG") for i in range(8)]
    path = str(folder / "rows.parquet")
    settings = {"input": {"path": path, "id_column": "id"}, "errors": {"expected_column": "label", "max_fraction": 1.0}}
    job = committed_jobs.prepared(folder, {"id": ids, "image": images, **columns}, **settings)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(committed_jobs, "result", answers)
        committed_jobs.commit(job, range(8))
    return write_report(JobFolder.at(job.store.folder))[0]


def plain_report(folder: Path) -> Path:
    """That of rows of which two have failed, one is cut, and one has an id that is hard to copy."""
    labels = [text if row != 6 else "rhea" for row, text in enumerate(ANSWERS)]
    prompts = [f"what is in picture {row}?" for row in range(8)]
    ids = ["a\u202e\"'<b>", *(f"row-{row}" for row in range(1, 8))]
    return report(folder, ids, answer, prompt=prompts, label=labels)
