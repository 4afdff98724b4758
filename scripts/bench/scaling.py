"""Measures two shares of a job, each on its own core, against one share that does the whole job on one core.

Rates count from the moment the engine is loaded, as each run prints them at its end. For two shares, the rate is all
rows divided by the time of the slower share.
"""

import os
import re
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

from systems import PRODUCT, command_of, job_file
from workloads import FOLDER, WORKLOADS, make_model, make_workload

ROUNDS = 3
_SUMMARY = re.compile(r"this run: (\d+) rows .* in ([\d.]+) (s|min)")


def rate(rows: Path, model: Path, count: int) -> float:
    """Rows per second of `count` shares that run concurrently, share K on core K."""
    folder = FOLDER / "scaling"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    job = job_file(rows, model, folder)
    environment = {**os.environ, **command_of(PRODUCT, rows, model, folder)[1], "BENCH_ENGINE_LOG": os.devnull}
    command = [Path(sys.executable).parent / "run-batch", "--config", job, "--quiet"]
    command += ["--set", "output.rows_per_shard=50", "--set", "model.plugins=[]", "--task-count", str(count)]
    cores = sorted(os.sched_getaffinity(0))[:count]
    shares = [
        subprocess.Popen(
            ["taskset", "-c", str(core), *command, "--task-index", str(index)],
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for index, core in enumerate(cores)
    ]
    found = [_SUMMARY.search(share.communicate()[0]) for share in shares]
    assert all(found) and not any(share.returncode for share in shares), "a share failed"
    seconds = max(float(match[2]) * (60 if match[3] == "min" else 1) for match in found if match)
    return sum(int(match[1]) for match in found if match) / seconds


def main() -> None:
    rows, model = make_workload(WORKLOADS["224-png"]), make_model()
    ratios = []
    for _ in range(ROUNDS):
        one, two = rate(rows, model, 1), rate(rows, model, 2)
        ratios.append(two / one)
        print(
            f"one share on one core {one:.0f} rows/s, two on two {two:.0f} rows/s, ratio {ratios[-1]:.2f}", flush=True
        )
    print(f"median ratio {statistics.median(ratios):.2f}")


if __name__ == "__main__":
    main()
