"""A few files of images and videos that the first rows name: by these, a folder of others of the same names is told.

The folder of images is no part of a job's identity, for it may move. Files that were missing when the job began, and
are there now, tell nothing.
"""

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa

from run_batch.io.inputs.source import InputError, Source
from run_batch.io.media.image_column import can_hold_paths, content_of, image_cells, images_in
from run_batch.io.media.media_root import MediaRoot, sample_below
from run_batch.jobs.job.config import JobConfig
from run_batch.jobs.job.errors import input_failed
from run_batch.jobs.job.prompt_column import PromptColumn

_ROWS = 8
_FILES = 16


def sample_media(
    config: JobConfig, source: Source, prompt_column: PromptColumn, root: MediaRoot | None
) -> dict[str, str]:
    """Digests of files below the media root that the first rows name, by the path that they name them by; none where it
    is in a store of objects.

    Raises:
        JobError, RunError: the input cannot be read, or is damaged.
    """
    columns = columns_with_paths(config, source, prompt_column)
    if not isinstance(root, Path) or not columns:
        return {}
    try:
        with contextlib.closing(source.cursor(columns, _ROWS)) as cursor:
            batch = next(cursor.read(0, min(_ROWS, source.num_rows)), None)
    except InputError as error:
        raise input_failed(error) from error
    place, names = Path(os.path.realpath(root)), dict[str, None]()
    if batch is not None:
        for column, cells in zip(columns, batch.records.columns, strict=True):
            with contextlib.suppress(UnicodeDecodeError):  # rows with text that is not UTF-8 are errors of their own
                names |= dict.fromkeys(_named(cells, is_image=column in _media_columns(config)))
    samples = {name: sample_below(place, name) for name in islice(names, _FILES)}
    return {name: sample for name, sample in samples.items() if sample is not None}


def columns_with_paths(config: JobConfig, source: Source, prompt_column: PromptColumn) -> list[str]:
    """The columns that can name files of images or videos."""
    media = _media_columns(config)
    columns = [column for column in media if can_hold_paths(source.schema.field(column).type)]
    if prompt_column is not PromptColumn.TEXTS and config.input.prompt_column not in media:
        columns.append(config.input.prompt_column)
    return columns


def _media_columns(config: JobConfig) -> list[str]:
    return [column for column in (config.input.image_column, config.input.video_column) if column]


def other_media(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """The files that were there when the job began and have other content now."""
    return [name for name in before if name in now and before[name] != now[name]]


def _named(cells: pa.Array, is_image: bool) -> Iterator[str]:
    """The texts of some cells that can be the path of a file."""
    for cell in image_cells(cells) if is_image else cells.to_pylist():
        for text in map(content_of, images_in(cell)) if is_image else _texts(cell):
            if isinstance(text, str):
                yield text


def _texts(value: Any) -> Iterator[str]:
    """All texts in a conversation, which may be JSON."""
    if isinstance(value, str):
        with contextlib.suppress(ValueError, RecursionError):
            inner = json.loads(value) if value.lstrip("\ufeff \t\r\n").startswith(("[", "{")) else None
            if inner is not None:
                yield from _texts(inner)
                return
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
