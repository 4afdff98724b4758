"""A shard with large carried columns is written a row group at a time: what that takes does not grow with the shard."""

import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from counted_files import write_images

import jobs

MEASURED = """
import sys
from pathlib import Path
from run_batch.io.outputs.shards import ShardStore
from run_batch.jobs.job.config import load_config
from run_batch.jobs.job.open_input import open_source
from run_batch.jobs.job.plan import make_plan
from run_batch.jobs.job.rows import Generation
from run_batch.jobs.job.work import Work
from run_batch.jobs.results.result_table import ShardTables
from run_batch.jobs.results.shard_writer import ShardWriter

config = load_config(Path(sys.argv[1]))
source = open_source(config)
plan = make_plan(config, source)
work = Work(plan, [0])
store = ShardStore(config.output_folder)
store.create()
commits = []
writer = ShardWriter(work, ShardTables(config, source, work, lambda shard: True), store, {}, "snappy", commits.append)
before = open("/proc/self/status").read().split("VmHWM:")[1].split()[0]
for row in range(plan.num_rows):
    writer.add(Generation(row, (f"text {row}",), "stop", 3, 1))
writer.finish()
assert [commit.rows for commit in commits] == [plan.num_rows]
print(int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0]) - int(before))
"""


def written(folder: Path, rows: int, nbytes: int, **pages: object) -> float:
    """Write a shard that carries its images; what that takes, in megabytes."""
    folder.mkdir()
    write_images(folder / "rows.parquet", rows, nbytes, rows, **pages)
    tables = {"input": {"id_column": "uid"}, "output": {"rows_per_shard": rows, "columns": ["image"]}}
    config = jobs.write_job(folder, None, **tables)
    said = subprocess.run([sys.executable, "-c", MEASURED, str(config)], capture_output=True, text=True)
    assert said.returncode == 0, said.stderr
    (folder / "rows.parquet").rename(folder / "before.parquet")
    return int(said.stdout) / 1000


def test_a_shard_of_large_images_is_never_held_whole(tmp_path: Path) -> None:
    taken = written(tmp_path / "a", 600, 1_000_000)
    assert taken < 420, f"{taken:.0f} of 600 megabytes"
    shard = pq.ParquetFile(tmp_path / "a" / "out" / "part-000000.parquet")
    assert shard.metadata.num_row_groups >= 4
    texts = [text for batch in shard.iter_batches(columns=["text"]) for text in batch["text"].to_pylist()]
    assert texts == [f"text {row}" for row in range(600)]
    before = pq.ParquetFile(tmp_path / "a" / "before.parquet")
    found, expected = (file.iter_batches(50, columns=["image"]) for file in (shard, before))
    assert all(
        a["image"].field("bytes").equals(b["image"].field("bytes")) for a, b in zip(found, expected, strict=True)
    )


@pytest.mark.long
def test_what_a_shard_of_rows_of_24_mb_takes_does_not_grow_with_it(tmp_path: Path) -> None:
    small, large = (written(tmp_path / str(rows), rows, 24_000_000, write_batch_size=1) for rows in (20, 80))
    print(f"\\na shard of 480 MB takes {small:.0f} MB, one of 1,920 MB {large:.0f} MB")
    assert large < 1.15 * small and large < 500
