"""Measures start-up time relative to plain vLLM, and memory relative to the number of rows.

Start-up: a job of one row, compared with a script that only starts LLMEngine and generates for one text prompt.
Memory: peak resident memory of all processes, for 2,000 rows and for ten times as many.
"""

import statistics
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from measure import Run, measure
from run import one_run
from systems import PEERS, PRODUCT, command_of
from workloads import FOLDER, WORKLOADS, Workload, make_model, make_workload

ROUNDS = 3


def first_rows(count: int) -> Path:
    """Write a data set of `count` rows that repeats the photographs of 224x224 with different prompts; return its path.

    Does nothing if the file exists.
    """
    path = FOLDER / f"{count}-rows.parquet"
    if not path.exists():
        table = pq.read_table(make_workload(WORKLOADS["224-png"]))
        times = -(-count // len(table))
        table = pa.concat_tables([table] * times).slice(0, count)
        prompts = [f"{prompt} ({row})" for row, prompt in enumerate(table["prompt"].to_pylist())]
        ids = [f"r{row}" for row in range(count)]
        table = pa.table({"id": ids, "image": table["image"].combine_chunks(), "prompt": prompts})
        pq.write_table(table, path, row_group_size=100)
    return path


def bare_start(rows: Path, model: Path) -> Run:
    environment = command_of("script-in-process", rows, model, FOLDER)[1]
    command = [sys.executable, str(PEERS / "bare_engine.py"), str(rows), str(model), "-", "-"]
    return measure("bare LLMEngine", "start-up", 1, command, environment, FOLDER / "bare.log")


def product(count: int, model: Path) -> Run:
    workload = Workload(f"{count}-rows", count, 224, 224)
    WORKLOADS[workload.name] = workload
    return one_run(PRODUCT, workload.name, first_rows(count), model)


def main() -> None:
    model = make_model()
    ratios = []
    for _ in range(ROUNDS):
        ours, bare = product(1, model).wall_seconds, bare_start(first_rows(1), model).wall_seconds
        ratios.append(ours / bare)
        print(f"start to first row: run-batch {ours:.1f} s, bare LLMEngine {bare:.1f} s, ratio {ratios[-1]:.2f}")
    print(f"median ratio {statistics.median(ratios):.2f}")
    few, many = product(2_000, model), product(20_000, model)
    print(
        f"peak memory of all processes: {few.peak_bytes / 1e9:.2f} GB for 2,000 rows, "
        f"{many.peak_bytes / 1e9:.2f} GB for 20,000, ratio {many.peak_bytes / few.peak_bytes:.2f}; "
        f"{many.steady_rows_per_second:.0f} rows/s"
    )


if __name__ == "__main__":
    main()
