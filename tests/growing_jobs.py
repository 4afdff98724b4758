"""Jobs of two files of ten rows each, to which rows are added, without an engine."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from run_batch.io.outputs.journal import SUFFIX
from run_batch.jobs.job.config import JobConfig, parse_config
from run_batch.jobs.job.prepare import PreparedJob, prepare


def make_inputs(folder: Path) -> Path:
    """Write two files of ten rows each, and the model of a job, into `folder`."""
    (folder / "in").mkdir()
    for name in ("b", "d"):
        write(folder / "in" / f"{name}.parquet")
    (folder / "model").mkdir()
    (folder / "model" / "config.json").write_text("{}")
    return folder


def write(path: Path, rows: int = 10, **columns: Any) -> None:
    path.parent.mkdir(exist_ok=True)
    ids = [f"{path.stem}{i}" for i in range(rows)]
    pq.write_table(pa.table({"uid": ids, "prompt": [f"prompt of {i}" for i in ids], **columns}), path)


def configured(folder: Path, **tables: dict[str, Any]) -> JobConfig:
    given: dict[str, dict[str, Any]] = {
        "input": {"path": "in", "image_column": "", "id_column": "uid"},
        "model": {"path": "model"},
        "output": {"path": "out", "rows_per_shard": 4},
    }
    return parse_config({name: {**given.get(name, {}), **tables.get(name, {})} for name in {**given, **tables}}, folder)


def begun(folder: Path, **tables: dict[str, Any]) -> PreparedJob:
    """A job that has finished a row."""
    job = prepare(configured(folder, **tables))
    job.store.create()
    job = job.write_record()
    job.store.journal_folder.mkdir(exist_ok=True)
    (job.store.journal_folder / f"0-0.all.x-00000{SUFFIX}").touch()
    return job
