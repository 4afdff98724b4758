"""Measures whether the engine waits for rows: run-batch with a simulated engine that takes a fixed time and no CPU.

A run with an engine that takes no time measures the mapping time, before and after each run with an engine whose time
is a multiple of it. The results show how close a run comes to the larger of mapping time and engine time, and how long
slots of the engine were empty.
"""

import io
import os
import shutil
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from stand_in import StandInEngine
from systems import PEERS, job_file
from workloads import FOLDER, WORKLOADS, make_model, make_workload

from run_batch.jobs.job.config import load_config
from run_batch.jobs.job.prepare import prepare
from run_batch.jobs.runner.run_job import run_job

SEATS = 64
TIMES = 4


def run(rows: Path, model: Path, seconds_per_row: float) -> StandInEngine:
    """Do a whole run with a simulated engine; return the engine."""
    folder = FOLDER / "overlap"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    job = prepare(load_config(job_file(rows, model, folder)))
    engines = []

    def start(config: object) -> StandInEngine:
        engines.append(StandInEngine(SEATS, seconds_per_row))
        return engines[0]

    code = run_job(job, quiet=True, summary=io.StringIO(), start_engine=start)  # type: ignore[arg-type]
    if code:
        sys.exit(f"the run ended with exit code {code}")
    return engines[0]


def again_and_again(rows: Path, times: int) -> Path:
    """Write a longer data set, `times` copies of one: at the end of a short one, many of 64 slots would be empty."""
    path = FOLDER / "overlap.parquet"
    if not path.exists():
        table = pa.concat_tables([pq.read_table(rows)] * times)
        table = table.set_column(0, "id", pa.array([f"r{row}" for row in range(len(table))]))
        pq.write_table(table, path, row_group_size=100)
    return path


def main() -> None:
    # Every process must find the job's plugin, which is in this folder.
    os.environ["PYTHONPATH"] = str(PEERS)
    model = make_model(336)
    workload = WORKLOADS["640x480"]
    rows = again_and_again(make_workload(workload), TIMES)
    count = workload.rows * TIMES
    before = mapping_alone(rows, model)
    print(f"\n{count} rows {workload.name} to 336 px with {SEATS} seats; mapping alone {before:.2f} s")
    for factor in (0.7, 1.0, 1.3, 2.0):
        engine_seconds = before * factor
        engine = run(rows, model, engine_seconds * SEATS / count)
        after = mapping_alone(rows, model)
        wall = engine.last - engine.first
        # A machine's speed drifts by more than the differences measured here.
        best = max((before + after) / 2, engine_seconds)
        print(
            f"engine time {factor:.1f} x mapping time ({before:.2f} s before, {after:.2f} s after): wall {wall:.2f} s, "
            f"{wall / best:.3f} of the larger one; seats empty {engine.idle_share:.1%} of the time"
        )
        before = after


def mapping_alone(rows: Path, model: Path) -> float:
    """Return the seconds of a run whose engine takes no time."""
    engine = run(rows, model, 0.0)
    return engine.last - engine.first


if __name__ == "__main__":
    main()
