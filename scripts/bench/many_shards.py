"""Measures whether the main loop's cost depends on the number of shards: rows per second of the same stand-in engine.

Three jobs of 1,000 rows a shard, 99 of 100 shards committed: 1,600 shards in one process; 100,000 shards in one
process; one share of 64 of the latter, beside 63 others that hold their leases. Each runs 16 rows at once in steps of
5 ms; its rate is that of its own metrics, without the first second.
"""

import contextlib
import json
import multiprocessing
import os
import shutil
import statistics
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / ".bench" / "many_shards"
ROWS_PER_SHARD = 1_000
# Rows of a row group, and of the part of the input that is written at once.
GROUP_ROWS, PART_ROWS = 10_000, 1_000_000
SHARES = 64
ROUNDS = 3
# ext4 takes 65,000 names for one file.
_LINKS = 50_000

sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "faults")]
import standing  # noqa: E402
from stand_ins import Speed  # noqa: E402

from run_batch.io.coordination.lease import Lease  # noqa: E402
from run_batch.io.outputs.shards import ShardStore  # noqa: E402
from run_batch.jobs.job.config import load_config  # noqa: E402
from run_batch.jobs.job.prepare import prepare  # noqa: E402
from run_batch.jobs.job.shares import Share  # noqa: E402
from run_batch.jobs.results.shard_commits import Commit, footer_of, record_commit  # noqa: E402
from run_batch.jobs.watch.metrics import METRICS_FILE  # noqa: E402


@dataclass(frozen=True)
class Case:
    """A job of so many shards, of which a process does one share of `shares`."""

    name: str
    shards: int
    shares: int


CASES = (
    Case("1,600 shards, one process", 1_600, 1),
    Case("100,000 shards, one process", 100_000, 1),
    Case(f"100,000 shards, one of {SHARES} shares", 100_000, SHARES),
)


def make_job(case: Case) -> standing.StandingJob:
    """A job of which all but the last hundredth of each of 64 parts is committed."""
    folder = FOLDER / "job"
    shutil.rmtree(folder, ignore_errors=True)
    job = standing.make_job(folder, ["p"], Speed(max_num_seqs=16, step_seconds=0.005, tame=True))
    job.config.write_text(
        '[input]\npath = "rows.parquet"\nimage_column = ""\n'
        f'[model]\npath = "{ROOT}/configs/demo/model"\n[preprocess]\nworkers = 1\n'
        f'[output]\npath = "out"\nrows_per_shard = {ROWS_PER_SHARD}\n'
    )
    part = pa.table({"prompt": pa.DictionaryArray.from_arrays(pa.repeat(pa.scalar(0, pa.int8()), PART_ROWS), ["p"])})
    rows = case.shards * ROWS_PER_SHARD
    with pq.ParquetWriter(folder / "rows.parquet", part.schema) as file:
        for first in range(0, rows, PART_ROWS):
            file.write_table(part.slice(0, rows - first), row_group_size=GROUP_ROWS)
    parts = [Share(index, SHARES).shards(case.shards) for index in range(SHARES)]
    prepared = prepare(load_config(job.config), Share(0, 1))
    prepared.store.create()
    prepared.write_record()
    commit(prepared.store, [shard for part in parts for shard in part[: len(part) * 99 // 100]])
    return job.share(0, case.shares) if case.shares > 1 else job


def commit(store: ShardStore, shards: list[int]) -> None:
    """Let shards be committed: names of a few files, and a line of each in `commits.jsonl`."""
    ones = pa.repeat(pa.scalar(1, pa.int32()), ROWS_PER_SHARD)
    table = pa.table({"row_id": ones.cast(pa.string()), "text": ones.cast(pa.string())})
    for position, shard in enumerate(shards):
        made = Commit(shard, 0, ROWS_PER_SHARD, ROWS_PER_SHARD, ROWS_PER_SHARD)
        record_commit(store, made)
        if position % _LINKS == 0:
            store.commit(shard, table, footer_of(made))
            first = store.path(shard)
        else:
            os.link(first, store.path(shard))


@contextlib.contextmanager
def live_shares(job: standing.StandingJob, shares: int) -> Iterator[None]:
    """Hold the leases of all shares but the first."""
    config = load_config(job.config)
    leases = []
    for index in range(1, shares):
        share = Share(index, shares)
        store = prepare(config, share).store
        store.create()
        leases.append(Lease(store.own_folder, share.label))
        leases[-1].take()
    try:
        yield
    finally:
        for lease in leases:
            lease.release()


def rate(case: Case) -> tuple[float, dict[str, float]]:
    """Rows per second, and of each second how long the main thread stepped the engine, fed it or had nothing to run."""
    job = make_job(case)
    with live_shares(job, case.shares):
        process = job.start()
        process.join(30)
        standing.kill_group(process)
    (file,) = [path for path in job.store.rglob(METRICS_FILE) if path.stat().st_size]
    lines = [json.loads(line) for line in file.read_text().splitlines()][1:-1]
    seconds = sum(line["seconds"] for line in lines)
    parts = {name: sum(line[f"{name}_seconds"] for line in lines) / seconds for name in ("step", "feed")}
    return sum(line["rows_finished"] for line in lines) / seconds, parts


def main() -> None:
    rates: dict[str, list[float]] = {case.name: [] for case in CASES}
    for _ in range(ROUNDS):
        for case in CASES:
            found, parts = rate(case)
            rates[case.name].append(found)
            shown = ", ".join(f"{name} {share:.3f}" for name, share in parts.items())
            print(f"{case.name}: {found:.0f} rows/s; of each second: {shown}", flush=True)
    base = statistics.median(rates[CASES[0].name])
    for name, found in rates.items():
        print(
            f"{name}: median {statistics.median(found):.0f} rows/s, {statistics.median(found) / base:.3f} of the first"
        )


if __name__ == "__main__":
    multiprocessing.set_start_method("forkserver")
    main()
