"""The bar of a run, on terminals of several widths."""

import contextlib
import fcntl
import os
import re
import struct
import sys
import termios
import time
from pathlib import Path

import pytest

import jobs
from run_batch.jobs.job.config import load_config
from run_batch.jobs.watch.progress import Progress
from run_batch.jobs.watch.progress_bar import Counts, bar_format, plain_line
from run_batch.jobs.watch.run_messages import RunMessages

SMALL = Counts(120, 2000, 3, 12.34, 456.7, "engine")
LARGE = Counts(39_123_456, 40_000_000, 1_234_567, 12_345.6, 1_234_567.8, "mapping")
SLOW = Counts(99_999, 40_000_000, 99_999, 0.1, 3.0, "mapping")
UNKNOWN = Counts(0, 2000, 0, 0.0, 0.0)


@pytest.mark.parametrize("width", [60, 80, 140])
@pytest.mark.parametrize("counts", [SMALL, LARGE, SLOW, UNKNOWN])
def test_all_that_matters_fits_into_the_width(counts: Counts, width: int) -> None:
    text = bar_format(counts, width).replace("{bar}", "#" * 8)
    assert len(text) < width, text
    assert re.match(r"[\d.]+[kMG]?/[\d.]+[kMG]?[ ,]", text), text
    assert (
        re.search(r"[\d.]+[kMG]? rows/s", text) and re.search(r"\S left\b", text) and re.search(r"\d\w? failed", text)
    )
    assert counts.bottleneck in text
    assert width < 140 or ("tokens/s" in text and "{bar}" in bar_format(counts, width))


def test_a_line_in_a_file_has_all_digits() -> None:
    assert plain_line(LARGE) == (
        "39123456 of 40000000 rows, 12345.6 rows/s, 1234568 tokens/s, 1234567 failed, 71.0 s left, bottleneck: mapping"
    )
    assert plain_line(UNKNOWN) == "0 of 2000 rows, 0.0 rows/s, 0 tokens/s, 0 failed, time left unknown"


def read_all(reading: int) -> bytes:
    """What was written to a terminal whose other end is closed: a read gives a part of it, the last one an error."""
    shown = b""
    with contextlib.suppress(OSError):
        while part := os.read(reading, 100_000):
            shown += part
    os.close(reading)
    return shown


@pytest.mark.parametrize("width", [60, 80, 140])
def test_the_bar_on_a_terminal_counts_no_row_of_an_earlier_run_as_speed(
    width: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading, writing = os.openpty()
    fcntl.ioctl(writing, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
    with open(writing, "w", buffering=1, closefd=False) as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        progress = Progress(2000, 0, 0, 0, tmp_path / "progress.json", "writer", quiet=False)
        for _ in range(1500):
            progress.add_recovered(failed=False, truncated=False)
        progress.bottleneck = "engine"
        progress.show()
        progress.close()
    os.close(writing)
    shown = read_all(reading).decode()
    *_, last = [line for line in re.split(r"[\r\n]+", shown) if line.strip()]
    assert len(last) <= width, last
    for part in ("1500/2000", "0.0 rows/s", "? left", "0 failed", "engine"):
        assert part in last, last


def test_what_ends_after_the_rows_takes_nothing_of_their_speed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    progress = Progress(60, 0, 0, 0, tmp_path / "progress.json", "writer", quiet=True)
    for _ in range(60):
        progress.add(tokens=2, failed=False, truncated=False)
    now[0] += 3
    progress.close()
    now[0] += 5  # the engine's process ends
    assert "this run: 60 rows and 120 tokens in 3.0 s (20.0 rows/s)" in progress.summary(tmp_path)


def test_the_first_line_names_versions_and_input_and_a_quiet_run_has_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = load_config(jobs.write_job(tmp_path, jobs.rows(2)))
    RunMessages(quiet=False).begin(config)
    said = capsys.readouterr().err
    assert re.fullmatch(r"run-batch: version \S+, vLLM \S+; planning the rows of rows\.parquet\n", said)
    RunMessages(quiet=True).begin(config)
    assert capsys.readouterr().err == ""
