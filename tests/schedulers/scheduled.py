"""Jobs with stand-ins for engine and workers, for schedulers other than Slurm."""

import json
import sys
from pathlib import Path

from stand_ins import Speed
from standing import StandingJob, make_job
from submitted import COMMAND, write_speed

import jobs

ROWS = 400
# An environment beside .venv with what only these schedulers need; `make ray-setup` makes it.
PYTHON = jobs.ROOT / ".bench" / "ray" / "bin" / "python"


def make_scheduled_job(folder: Path, speed: Speed | None = None) -> StandingJob:
    """A job of 400 rows in shards of 10."""
    job = make_job(folder, [f"prompt {i}" for i in range(ROWS)], output={"rows_per_shard": 10})
    write_speed(job.config.parent, speed or Speed())
    return job


def stand_in_command(folder: Path) -> Path:
    """`run-batch`, with stand-ins, as a program that a shell finds."""
    path = folder / "bin" / "run-batch"
    path.parent.mkdir()
    path.write_text(f'#!/bin/sh\nexec {sys.executable} {COMMAND} "$@"\n')
    path.chmod(0o755)
    return path


def check_complete(job: StandingJob) -> None:
    """Each row is there once, with its own text."""
    table = job.table()
    assert table["row_id"].to_pylist() == [f"u{i:06d}" for i in range(ROWS)]
    assert table["text"].to_pylist() == [f"text of prompt {i}" for i in range(ROWS)] and job.is_complete()
    assert json.loads((job.store / ".run_batch" / "summary.json").read_text())["rows"] == ROWS
