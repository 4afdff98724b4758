"""Rows whose images together are larger than pyarrow converts at once."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

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
