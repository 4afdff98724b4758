"""The content of a shard: its codec, and row groups that a reader can hold."""

from pathlib import Path
from typing import get_args

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from run_batch.io.outputs import shard_file
from run_batch.io.outputs.shards import ShardStore
from run_batch.jobs.job.config_tables import OutputTable

MEGABYTE = 1 << 20


def groups(path: Path) -> list[int]:
    metadata = pq.read_metadata(path)
    return [metadata.row_group(index).num_rows for index in range(metadata.num_row_groups)]


def test_row_groups_are_limited_in_bytes_also_where_few_rows_are_large(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shard_file, "ROW_GROUP_BYTES", 4 * MEGABYTE)
    store = ShardStore(tmp_path)
    store.create()
    sizes = [100] * 500 + [MEGABYTE] * 10 + [9 * MEGABYTE] + [100] * 500
    words = pa.array([f"word {i % 7}" for i in range(len(sizes))]).dictionary_encode()
    table = pa.table({"image": [bytes(size) for size in sizes], "word": words})
    store.commit(0, table, {})
    found = groups(store.path(0))
    starts = [sum(found[:index]) for index in range(len(found))]
    held = [sum(sizes[start : start + rows]) for start, rows in zip(starts, found, strict=True)]
    assert sum(found) == len(sizes) and found[0] > 500
    assert [total for total in held if total > 4 * MEGABYTE] == [9 * MEGABYTE] and len(found) <= 7
    assert store.read(0).equals(table)


def test_a_small_shard_is_one_row_group(tmp_path: Path) -> None:
    store = ShardStore(tmp_path)
    store.create()
    store.commit(0, pa.table({"text": ["a"] * 5000}), {})
    assert groups(store.path(0)) == [5000]


@pytest.mark.parametrize("codec", get_args(OutputTable.model_fields["compression"].annotation))
def test_every_codec_that_output_compression_takes_is_written(tmp_path: Path, codec: str) -> None:
    store = ShardStore(tmp_path)
    store.create()
    store.commit(0, pa.table({"text": ["a"] * 50}), {}, codec)
    written = pq.read_metadata(store.path(0)).row_group(0).column(0).compression
    assert written == {"none": "UNCOMPRESSED"}.get(codec, codec.upper())
    assert store.read(0)["text"].to_pylist() == ["a"] * 50
