"""Rows whose images together are larger than pyarrow converts at once, or than a process should hold."""

import contextlib
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from counted_files import write_images
from stand_ins import Speed
from standing import StandingJob

import jobs
from run_batch.io.inputs.parquet import ParquetSource
from run_batch.io.outputs.shards import ShardStore


@pytest.mark.long
@pytest.mark.parametrize("use_dictionary", [False, True])
def test_more_than_two_gigabytes_of_images_are_read_and_written(tmp_path: Path, use_dictionary: bool) -> None:
    images = pa.array([{"bytes": bytes(3 << 20), "path": None}] * 8)
    table = pa.table({"n": range(800), "image": pa.chunked_array([images] * 100)})
    pq.write_table(table, tmp_path / "rows.parquet", use_dictionary=use_dictionary)
    del table
    source, store = ParquetSource(str(tmp_path / "rows.parquet")), ShardStore(tmp_path / "out")
    store.create()
    batches = [batch.records for batch in source.cursor(["n", "image"], 1024).read(0, 800)]
    store.commit(0, pa.Table.from_batches(batches), {})
    del batches
    written = ParquetSource(str(store.path(0)))
    assert sum(batch.records.num_rows for batch in written.cursor(["image"], 1024).read(0, 800)) == 800
    assert store.read(0, ["n"])["n"].to_pylist() == list(range(800))


# The pages of pyarrow's own layout are of 1,024 rows, with a dictionary as large.
LAYOUTS: dict[str, dict[str, Any]] = {
    "groups of 64 rows": {"row_group": 64},
    "one group": {"row_group": 40_000},
    "one group, pages of 50 MB": {"row_group": 40_000, "write_batch_size": 1024, "use_dictionary": True},
}


@pytest.mark.long
def test_a_job_on_two_gigabytes_in_one_row_group_takes_as_much_memory_as_on_small_ones(tmp_path: Path) -> None:
    peaks = {}
    for layout, named in LAYOUTS.items():
        folder = tmp_path / layout
        folder.mkdir()
        size = write_images(folder / "rows.parquet", 40_000, 50_000, **named)
        tables = {"input": {"id_column": "uid"}, "prompt": {"template": "{prompt}"}, "preprocess": {"workers": 1}}
        config = jobs.write_job(folder, None, **tables, output={"rows_per_shard": 500})
        job = StandingJob(config, Speed(max_num_seqs=256, step_seconds=0.001, tame=True))
        process, peak, read = job.start(), 0, 0
        while process.exitcode is None:
            with contextlib.suppress(OSError, IndexError):
                status = Path(f"/proc/{process.pid}/status").read_text()
                peak = max(peak, int(status.split("VmHWM:")[1].split()[0]))
                read = max(read, int(Path(f"/proc/{process.pid}/io").read_text().split("rchar:")[1].split()[0]))
            process.join(0.02)
        assert process.exitcode == 0 and job.is_complete(), job.said()
        assert read < 1.1 * size
        peaks[layout] = peak
        (folder / "rows.parquet").unlink()
    print(f"\npeaks of the run in kB: {peaks}")
    assert max(peaks.values()) < 1.15 * peaks["groups of 64 rows"]
