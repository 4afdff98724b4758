"""Configurations of jobs that tests look into without running them."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from run_batch.jobs.job.config import JobConfig, parse_config


def make_inputs(folder: Path) -> Path:
    """The rows and the model that `job` names: four rows, of which two have the same id, and an empty model."""
    rows = {"uid": ["a", "b", "c", "b"], "image": [b"x"] * 4, "prompt": ["p"] * 4, "error": ["e"] * 4}
    pq.write_table(pa.table(rows), folder / "rows.parquet")
    (folder / "model").mkdir()
    (folder / "model" / "config.json").write_text("{}")
    return folder


def job(folder: Path, **tables: dict[str, Any]) -> JobConfig:
    base = {"input": {"path": "rows.parquet"}, "model": {"path": "model"}, "output": {"path": "out"}}
    return parse_config({**base, **{k: {**base.get(k, {}), **v} for k, v in tables.items()}}, folder)
