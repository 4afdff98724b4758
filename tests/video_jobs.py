"""Jobs whose rows have videos, and what is mapped of them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from pictures import encoded, picture
from videos import turned, video

import jobs
from run_batch.io.inputs.source import RowBatch
from run_batch.jobs.job.config import load_config
from run_batch.jobs.job.prompt_column import PromptColumn
from run_batch.jobs.job.rows import MappedRow, MappedRows
from run_batch.jobs.mapping.row_mapper import RowMapper

ENGINE: dict[str, Any] = {"dtype": "float32", "max_model_len": 4096, "max_num_seqs": 8, "enforce_eager": True}
IMAGE = encoded(picture(9, (90, 70)))
# Of several lengths, rates, sizes and containers; four frames are fewer than the loaders want of a second.
VIDEOS = [
    video(1),
    video(2, frames=50, fps=25.0, size=(96, 64)),
    video(3, frames=4, fps=2.0, size=(48, 96)),
    video(4, frames=31, fps=7.5, form="avi"),
]
Row = tuple[list[bytes], list[bytes], str]
ROWS: list[Row] = [
    *(([], [encoded_video], f"What is in video {number}?") for number, encoded_video in enumerate(VIDEOS)),
    ([], VIDEOS[:2], "Compare the two."),
    ([IMAGE], VIDEOS[2:3], "Is the image from the video?"),
    ([IMAGE], [], "What is this?"),
    ([], [], "Say something."),
    ([], VIDEOS[:1], "What is at the end?"),
    ([], [turned(VIDEOS[0])], "Which side is up?"),
]


def table(rows: Sequence[Row]) -> pa.Table:
    images, videos, prompts = zip(*rows, strict=True)
    kind = pa.list_(pa.binary())
    columns = {"image": pa.array(images, kind), "video": pa.array(videos, kind), "prompt": list(prompts)}
    return pa.table({"uid": [f"u{number}" for number in range(len(rows))], **columns})


def write_job(
    folder: Path, model: Path, columns: pa.Table, engine: dict[str, Any] | None = None, **prompt: Any
) -> Path:
    tables = {"model": {"path": str(model)}, "engine": {**ENGINE, **(engine or {})}}
    with_images = {"image_column": "image"} if "image" in columns.column_names else {}
    named = {"input": {"video_column": "video", **with_images}, "prompt": {"template": None, **prompt}}
    return jobs.write_job(folder, columns, **tables, **named)


def mapped(
    folder: Path,
    model: Path,
    columns: pa.Table,
    root: Path | None = None,
    holds: PromptColumn = PromptColumn.TEXTS,
    **settings: Any,
) -> MappedRows:
    mapper = RowMapper(load_config(write_job(folder, model, columns, **settings)), columns.schema, root, holds)
    return list(mapper.map(RowBatch(0, columns.combine_chunks().to_batches()[0], None)))


def token_ids(results: MappedRows) -> list[list[int]]:
    return [row.engine_input["prompt_token_ids"] for row in results if isinstance(row, MappedRow)]
