"""Trials of rows of the demo's model, with an engine of the tests'."""

import json
from pathlib import Path
from typing import Any

from fake_engine import FakeEngine

import jobs
from run_batch.jobs.job.config import load_config
from run_batch.jobs.job.prepare import PreparedJob, prepare
from run_batch.jobs.trial.try_job import Trial, try_job

COUNT = 20


def opened(folder: Path, columns: Any = None, **tables: Any) -> PreparedJob:
    """A job of `COUNT` rows, or of the given ones, ready to be tried."""
    path = jobs.write_job(folder, jobs.rows(COUNT) if columns is None else columns, **tables)
    return prepare(load_config(path), writes=False)


def tried(job: PreparedJob, engine: Any = None, **trial: Any) -> tuple[dict[str, Any], int]:
    """What a trial found, and its exit code."""
    shown, code = try_job(job, Trial(**{"rows": 8, "as_json": True, **trial}), lambda config: engine or FakeEngine())
    return json.loads(shown), code


def shown(job: PreparedJob, engine: Any = None, **trial: Any) -> str:
    """What a trial shows to people."""
    return try_job(job, Trial(**{"rows": 8, **trial}), lambda config: engine or FakeEngine())[0]
