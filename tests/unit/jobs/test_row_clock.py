"""What the clock of a worker shows while it maps rows: which row it is at, and what it waits for."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from bad_rows import BadRow, columns, of_bytes
from pictures import encoded, picture

import jobs
from run_batch.io.inputs.source import RowBatch
from run_batch.io.media import image_reader
from run_batch.io.media.prefetch import UrlFetcher
from run_batch.jobs.job.config import load_config
from run_batch.jobs.job.rows import MappedRow
from run_batch.jobs.mapping.row_clock import Activity, clock
from run_batch.jobs.mapping.row_mapper import RowMapper
from run_batch.model.plugin import announce_plugins, register
from run_batch.model.rendering import image_mapper

PICTURE = encoded(picture(5))


def test_a_read_is_told_from_a_download_and_from_the_rest_of_mapping(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[tuple[Activity, int, int, str]] = []

    def note(function: Any) -> Any:
        def noting(*arguments: Any, **keywords: Any) -> Any:
            stage = clock.stage
            shown.append((stage.activity, stage.row, stage.rows, stage.what))
            return function(*arguments, **keywords)

        return noting

    monkeypatch.setattr(image_reader, "read_below", note(image_reader.read_below))
    monkeypatch.setattr(UrlFetcher, "read", note(lambda fetcher, url: encoded(picture(6))))
    monkeypatch.setattr(image_mapper, "decode_row_image", note(image_mapper.decode_row_image))
    (tmp_path / "7.png").write_bytes(encoded(picture(7)))
    announce_plugins([], tmp_path)
    register()
    path = jobs.write_job(tmp_path, None, input={"id_column": None, "sampling_column": "own"})
    cells = [of_bytes(PICTURE), [{"bytes": None, "path": "7.png"}], [{"bytes": None, "path": "http://host/6.png"}]]
    records = columns([BadRow((), cell) for cell in cells]).to_batches()[0]
    mapper = RowMapper(load_config(path), records.schema, tmp_path)
    mapped = list(mapper.map(RowBatch(40, records, [f"rows:{i}" for i in range(len(cells))])))
    assert len([row for row in mapped if isinstance(row, MappedRow)]) == records.num_rows, mapped
    first = mapped[0].row
    reads = [entry for entry in shown if entry[0] is Activity.READING]
    waits = [entry for entry in shown if entry[0] is Activity.IDLE]
    decodes = [entry for entry in shown if entry[3] == "decoding and mapping its images"]
    assert [(row - first, rows, what) for _, row, rows, what in reads] == [(1, 1, "reading image 7.png")]
    assert [row - first for _, row, _, _ in waits] == [2], "a download has limits of its own"
    # The first row alone: nothing is known of its size yet.
    assert [(row - first, rows) for _, row, rows, _ in decodes] == [(0, 1), (1, 2), (1, 2)]


HANGING_ROW = """
import time
from run_batch.jobs.mapping.row_clock import clock
from run_batch.jobs.mapping.row_watch import rows_watched
with rows_watched(0.3):
    time.sleep(1.5)  # it waits for the first row
    clock.begin(7, 1, "filling in its prompt")
    time.sleep(1000)
"""


def test_a_row_that_hangs_while_a_job_is_checked_ends_the_check_and_is_named() -> None:
    done = subprocess.run([sys.executable, "-c", HANGING_ROW], capture_output=True, text=True, timeout=100)
    assert done.returncode == 2 and "row 7: filling in its prompt takes longer than 0.3 s" in done.stderr, done.stderr
