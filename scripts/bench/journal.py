"""Measures the cost of the journal: runs the same job with and without it, in turn, and measures its CPU time.

    .venv/bin/python scripts/bench/journal.py [--rows 6000] [--pairs 3] [--logprobs 0]

Runs on a shared machine differ by more than the cost of the journal, so there are two measures: the median ratio of
rows per second over pairs of runs, and the CPU seconds of the journal's thread and of appending to its queue, over the
seconds of the run. Prints a line for each; the exit code is 1 if the second is 2 % or more.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

DEMO = Path(__file__).resolve().parent.parent.parent / "configs" / "demo.toml"
LIMIT = 0.02


def run_once(with_journal: bool, settings: list[str]) -> None:
    """Run the job in this process and print its times as JSON."""
    from run_batch.io.outputs.journal import JournalWriter
    from run_batch.jobs.job.config import load_config
    from run_batch.jobs.job.prepare import prepare
    from run_batch.jobs.runner.pipeline import Pipeline
    from run_batch.jobs.runner.run_job import run_job

    spent = {"append": 0.0, "thread": 0.0, "generate": 0.0, "rows": 0.0}
    append, run, generate = JournalWriter.append, JournalWriter._run, Pipeline._generate

    def timed_append(self: Any, shard: int, item: Any) -> None:
        started = time.thread_time()
        if with_journal:
            append(self, shard, item)
        spent["append"] += time.thread_time() - started
        spent["rows"] += 1

    def timed_run(self: Any) -> None:
        run(self)
        spent["thread"] = time.thread_time()

    def timed_generate(self: Any, *arguments: Any) -> None:
        started = time.monotonic()
        try:
            generate(self, *arguments)
        finally:
            spent["generate"] = time.monotonic() - started

    for owner, name, timed in (
        (JournalWriter, "append", timed_append),
        (JournalWriter, "_run", timed_run),
        (Pipeline, "_generate", timed_generate),
    ):
        setattr(owner, name, timed)
    code = run_job(prepare(load_config(DEMO, tuple(settings))), True, sys.stderr)
    print(json.dumps({**spent, "cpu": time.process_time(), "code": code}), flush=True)


def measure(with_journal: bool, rows: int, logprobs: int, folder: Path) -> dict[str, float]:
    settings = [f"input.path={folder / 'rows.parquet'}", f"output.path={folder / 'out'}", f"input.limit={rows}"]
    if logprobs:
        settings.append(f"sampling.logprobs={logprobs}")
    words = [sys.executable, __file__, "--once", "with" if with_journal else "without", *settings]
    finished = subprocess.run(words, capture_output=True, text=True)
    if finished.returncode:
        raise SystemExit(finished.stderr)
    subprocess.run(["rm", "-r", str(folder / "out")], check=True)
    found: dict[str, float] = json.loads(finished.stdout.splitlines()[-1])
    return found


def repeat_rows(rows: int, file: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(DEMO.parent / "demo" / "digits.parquet")
    table = pa.concat_tables([table] * -(-rows // len(table))).slice(0, rows)
    ids = pa.array([f"r{i}" for i in range(rows)])
    pq.write_table(table.set_column(table.column_names.index("id"), "id", ids), file, row_group_size=1000)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=6000)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--logprobs", type=int, default=0, help="candidates for each token, for larger rows")
    options = parser.parse_args()
    ratios, shares = [], []
    with tempfile.TemporaryDirectory(prefix="bench-journal-") as name:
        folder = Path(name)
        repeat_rows(options.rows, folder / "rows.parquet")
        for pair in range(options.pairs):
            order = (True, False) if pair % 2 else (False, True)
            found = {mode: measure(mode, options.rows, options.logprobs, folder) for mode in order}
            rate = {mode: options.rows / run["generate"] for mode, run in found.items()}
            used = found[True]["append"] + found[True]["thread"]
            ratios.append(rate[True] / rate[False])
            shares.append(used / found[True]["generate"])
            print(
                f"with {rate[True]:.0f} rows/s, without {rate[False]:.0f}; the journal took {used * 1000:.0f} ms of "
                f"{found[True]['generate']:.1f} s, {used / options.rows * 1e6:.1f} us a row",
                flush=True,
            )
    ratio, share = statistics.median(ratios), statistics.median(shares)
    print(f"throughput with / without, median of {options.pairs} pairs: {ratio:.3f}")
    print(f"seconds of the journal / seconds of the run: {share:.2%} (limit {LIMIT:.0%})")
    raise SystemExit(share >= LIMIT)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--once"]:
        run_once(sys.argv[2] == "with", sys.argv[3:])
    else:
        main()
