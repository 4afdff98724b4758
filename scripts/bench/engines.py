"""Measures two engines of one run, each on its own core, against one engine on one core: rows/s, parent included.

Two jobs: large photographs and one new token a row, which mapping bounds, and small images with many tokens, which the
engine bounds. Rates are those that each run prints at its end: they count from the moment the first engine is loaded.
The results of the two runs have to be equal.
"""

import os
import re
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from systems import PRODUCT, command_of, job_file
from workloads import FOLDER, WORKLOADS, Workload, make_model, make_workload

ROUNDS = 3
_SUMMARY = re.compile(r"this run: (\d+) rows .*\(([\d.]+) rows/s\)")
# What bounds the job -> its rows, new tokens of each.
JOBS = {
    "mapping": (Workload("1600x1200-long", 1200, 1600, 1200), 1),
    "engine": (WORKLOADS["224-png"], 64),
}


def run(rows: Path, model: Path, tokens: int, engines: int) -> tuple[float, float, pa.Table]:
    """One run on as many cores as it has engines: its rows per second, its seconds from start to end, its results."""
    folder = FOLDER / "engines"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    job = job_file(rows, model, folder)
    environment = {**os.environ, **command_of(PRODUCT, rows, model, folder)[1]}
    settings = {
        "engine.data_parallel_size": engines,
        "output.rows_per_shard": 25,
        "sampling.max_tokens": tokens,
        "model.plugins": [],
    }
    cores = ",".join(map(str, sorted(os.sched_getaffinity(0))[:engines]))
    command = ["taskset", "-c", cores, str(Path(sys.executable).parent / "run-batch"), "--config", str(job), "--quiet"]
    command += [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    began = time.monotonic()
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment)
    seconds = time.monotonic() - began
    found = _SUMMARY.search(done.stdout)
    if done.returncode or not found:
        sys.exit(f"the run ended with exit code {done.returncode}")
    return float(found[2]), seconds, pa.concat_tables(map(pq.read_table, sorted((folder / "out").glob("part-*"))))


def main() -> None:
    if len(os.sched_getaffinity(0)) < 2:
        sys.exit("two engines need two cores")
    model = make_model()
    for bound, (workload, tokens) in JOBS.items():
        rows = make_workload(workload)
        ratios = []
        for _ in range(ROUNDS):
            (one, one_wall, expected), (two, two_wall, results) = (run(rows, model, tokens, count) for count in (1, 2))
            if not results.equals(expected):
                sys.exit("two engines give other results than one")
            ratios.append(two / one)
            print(
                f"{workload.name}, {tokens} tokens, bounded by {bound}: one engine on one core {one:.1f} rows/s "
                f"({one_wall:.0f} s in all), two on two {two:.1f} ({two_wall:.0f} s), ratio {ratios[-1]:.2f}",
                flush=True,
            )
        print(f"bounded by {bound}: median ratio {statistics.median(ratios):.2f}", flush=True)


if __name__ == "__main__":
    main()
