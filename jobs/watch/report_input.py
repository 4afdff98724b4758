"""What a report shows of the input: prompts, expected texts, and small pictures of images.

The input is read at the places that the job names, as a run reads it, but for images behind URLs: a report fetches
nothing. Where it is not there, or has other rows by now, the report says so and shows results alone.
"""

import contextlib
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from run_batch.io.features import classes_at, features_of
from run_batch.io.inputs.input_parts import first_rows
from run_batch.io.inputs.source import InputError, Source
from run_batch.io.media.errors import MediaError
from run_batch.io.media.image_column import content_of, image_cells, images_in
from run_batch.io.media.image_reader import MediaReader
from run_batch.jobs.job.columns import prompt_columns
from run_batch.jobs.job.config import JobConfig
from run_batch.jobs.job.errors import JobError, RunError
from run_batch.jobs.job.media_places import media_root_of
from run_batch.jobs.job.open_input import open_source
from run_batch.jobs.job.recorded_job import read_recorded_job, recorded_index
from run_batch.jobs.watch.job_folder import JobFolder
from run_batch.jobs.watch.report_sample import SampledRow
from run_batch.jobs.watch.thumbnails import NoThumbnailError, image_size, thumbnail

# Rows may lie in row groups of gigabytes, on storage that is slow.
_SECONDS = 60.0
_IMAGES_SHOWN, _IMAGE_BYTES = 4, 10_000
# Of a text; the page shows less.
_CHARACTERS = 5000


@dataclass(slots=True)
class InputCells:
    """What the input has for a row.

    Attributes:
        prompt: the columns that its prompt is made of, as text.
        expected: the text of `errors.expected_column`.
        images: the place of each among the images of its row, from 1 on, and a small JPEG file.
        sizes: width and height of the images that these are of.
        note: why images are not shown, or not all of them.
    """

    prompt: str = ""
    expected: str | None = None
    images: list[tuple[int, bytes]] = field(default_factory=list)
    sizes: list[tuple[int, int]] = field(default_factory=list)
    note: str = ""


class InputRows:
    """Reads rows of a job's input, if that is still there.

    Attributes:
        problem: why rows of the input are not shown; empty where all are.
    """

    def __init__(self, folder: JobFolder, image_bytes: int) -> None:
        """Open the input.

        Args:
            image_bytes: of the pictures of a row, all together.
        """
        self.problem = ""
        self._image_bytes = image_bytes
        self._config = folder.config
        self._source: Source | None = None
        if self._config is None:
            self.problem = "the input is not shown: the results folder does not record a job.toml that can be read here"
            return
        try:
            source = open_source(self._config, recorded_index(folder.store))
            _check_same(folder, source)
            self._open(self._config, source)
        except (JobError, RunError, InputError, OSError) as error:
            self.problem = f"the input is not shown: {error}"

    def _open(self, config: JobConfig, source: Source) -> None:
        table, expected = config.input, config.errors.expected_column
        known = set(source.schema.names).difference(source.unusable)
        if table.id_column not in {None, *known}:
            raise InputError(f"it has no column {table.id_column} now, which input.id_column names")
        self._prompts = [name for name in dict.fromkeys(prompt_columns(config, source.schema)) if name in known]
        names = dict.fromkeys([*self._prompts, table.image_column, table.video_column, table.id_column, expected])
        self._names = [name for name in names if name and name in known]
        self._classes = classes_at(features_of(source.schema), expected or "", ())
        self._media = MediaReader(media_root_of(config, source))
        self._source = source

    def read(self, rows: Sequence[SampledRow]) -> dict[int, InputCells]:
        """What the input has for some rows, by row; not for all where that takes more than a minute."""
        found: dict[int, InputCells] = {}
        if self._source is None:
            return found
        until = time.monotonic() + _SECONDS
        try:
            with contextlib.closing(self._source.cursor(self._names, 1)) as cursor:
                for row in rows:
                    if time.monotonic() > until:
                        left = len(rows) - len(found)
                        self.problem = (
                            f"the input of {left} rows is not shown: it was not read in {_SECONDS:.0f} seconds"
                        )
                        break
                    for batch in cursor.read(row.row, row.row + 1):
                        found[row.row] = self._cells(row, batch.records)
        except (InputError, pa.ArrowException, OSError) as error:
            self.problem = f"the input of {len(rows) - len(found)} rows is not shown: {error}"
        return found

    def _cells(self, row: SampledRow, records: pa.RecordBatch) -> InputCells:
        assert self._config is not None
        if self._id_of(row, records) != row.cells["row_id"]:
            return InputCells(note="the input has another row here now")
        cells = InputCells()
        with contextlib.suppress(UnicodeDecodeError, pa.ArrowException):
            prompts = {name: _text(records.column(name)[0].as_py()) for name in self._prompts}
            texts = prompts.values() if len(prompts) == 1 else (f"{name}: {text}" for name, text in prompts.items())
            cells.prompt = "\n".join(texts)
            cells.expected = self._expected(records)
        with contextlib.suppress(UnicodeDecodeError):
            self._add_images(cells, records)
        return cells

    def _id_of(self, row: SampledRow, records: pa.RecordBatch) -> str | None:
        assert self._config is not None and self._source is not None
        column = self._config.input.id_column
        if column is None:
            return self._source.row_names(row.row, row.row + 1)[0]
        with contextlib.suppress(UnicodeDecodeError, pa.ArrowException):
            return _text(records.column(column).cast(pa.string())[0].as_py())  # cut, as that of the row is
        return None

    def _expected(self, records: pa.RecordBatch) -> str | None:
        assert self._config is not None
        column = self._config.errors.expected_column
        if column not in records.schema.names:
            return None
        cell = records.column(column)[0].as_py()
        if self._classes:
            return self._classes[cell] if cell is not None and 0 <= cell < len(self._classes) else None
        return None if cell is None else _text(cell)

    def _add_images(self, cells: InputCells, records: pa.RecordBatch) -> None:
        assert self._config is not None
        column, videos = self._config.input.image_column, self._config.input.video_column
        if videos in records.schema.names:
            count = len(images_in(image_cells(records.column(videos))[0]))
            cells.note = f"{count} video{'s' * (count != 1)}, not shown" if count else ""
        if column not in records.schema.names:
            return
        cell = image_cells(records.column(column))[0]
        if isinstance(cell, pa.Scalar):
            cells.note = "; ".join(filter(None, ["features of images" if cell.is_valid else "", cells.note]))
            return
        images = images_in(cell)
        shown = images[:_IMAGES_SHOWN]
        budget = min(_IMAGE_BYTES, self._image_bytes // max(len(shown), 1))
        notes = [*([cells.note] if cells.note else []), *_more_images(len(images) - len(shown))]
        for number, image in enumerate(shown, 1):
            try:
                if self._media.is_downloaded(content_of(image)):
                    notes.append("an image behind a URL is not fetched")
                    continue
                for encoded in self._read(image):
                    cells.images.append((number, thumbnail(encoded, budget)))
                    cells.sizes += filter(None, [image_size(encoded)])
            except (MediaError, NoThumbnailError) as error:
                notes.append(f"image {number} of {len(images)}: {error}" if len(images) > 1 else str(error))
        cells.note = "; ".join(dict.fromkeys(notes))

    def _read(self, image: Any) -> Iterator[bytes]:
        for encoded in self._media.read([image]):
            assert isinstance(encoded, bytes)
            yield encoded


def _more_images(count: int) -> list[str]:
    return [f"{count} more images"] if count > 0 else []


def _check_same(folder: JobFolder, source: Source) -> None:
    """Refuse an input whose files are others by now than those that the job has read."""
    job = read_recorded_job(folder.store)
    if job is not None and tuple(first_rows(source.parts, job.plan.num_rows)) != tuple(job.parts):
        raise InputError("what input.path holds now is not what the job has read")


def _text(cell: Any) -> str:
    """A cell as text, cut: conversations as JSON, in which bytes are counted."""
    if isinstance(cell, str):
        return cell[:_CHARACTERS]
    if cell is None:
        return "(null)"
    return json.dumps(cell, ensure_ascii=False, default=_shown)[:_CHARACTERS]


def _shown(value: Any) -> str:
    return f"({len(value)} bytes)" if isinstance(value, bytes) else str(value)
