"""Row groups of large values are read in batches that are limited in bytes, and every row comes once, in order."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from run_batch.io.inputs.parquet import ParquetSource
from run_batch.io.inputs.parquet_batches import read_group
from run_batch.io.outputs import shard_file
from run_batch.io.outputs.shards import ShardStore

MEGABYTE = 1 << 20


def large_images(count: int, nbytes: int) -> pa.Table:
    images = [{"bytes": bytes([i % 256]) * nbytes, "path": None} for i in range(count)]
    return pa.table({"n": range(count), "image": images})


def test_a_batch_of_large_images_is_limited_in_bytes(tmp_path: Path) -> None:
    pq.write_table(large_images(40, 4 * MEGABYTE), tmp_path / "rows.parquet", use_dictionary=False)
    batches = list(ParquetSource(str(tmp_path / "rows.parquet")).cursor(["n", "image"], 1024).read(3, 40))
    assert [n for batch in batches for n in batch.records["n"].to_pylist()] == list(range(3, 40))
    assert all(batch.records["n"][0].as_py() == batch.start for batch in batches)
    assert max(batch.records.nbytes for batch in batches) < 80 * MEGABYTE
    (one,) = ParquetSource(str(tmp_path / "rows.parquet")).cursor(["n"], 1024).read(0, 40)
    assert one.records.num_rows == 40, "small columns are read in as many rows as are asked for"


class Failing:
    """A Parquet file of which no batch of more than `most` rows can be converted, from row `first` on."""

    def __init__(self, parquet: pq.ParquetFile, first: int, most: int) -> None:
        self._parquet, self._first, self._most = parquet, first, most
        self.metadata = parquet.metadata

    def iter_batches(self, batch_size: int, **named: Any) -> Iterator[pa.RecordBatch]:
        row = 0
        for batch in self._parquet.iter_batches(batch_size=batch_size, **named):
            row += batch.num_rows
            if row > self._first and batch.num_rows > self._most:
                raise pa.ArrowNotImplementedError("Nested data conversions not implemented for chunked array outputs")
            yield batch


def no_file() -> Any:
    raise AssertionError("small values need no look at their pages")


@pytest.mark.parametrize(("first", "most"), [(0, 7), (0, 1), (50, 3), (99, 20), (100, 0)])
def test_values_that_are_larger_than_the_file_tells_are_read_in_smaller_batches(
    tmp_path: Path, first: int, most: int
) -> None:
    pq.write_table(pa.table({"n": range(100)}), tmp_path / "rows.parquet")
    parquet: Any = Failing(pq.ParquetFile(tmp_path / "rows.parquet"), first, most)
    found = [n for batch in read_group(parquet, 0, ["n"], 16, no_file) for n in batch["n"].to_pylist()]
    assert found == list(range(100))


def test_what_cannot_be_read_at_all_fails(tmp_path: Path) -> None:
    pq.write_table(pa.table({"n": range(10)}), tmp_path / "rows.parquet")
    parquet: Any = Failing(pq.ParquetFile(tmp_path / "rows.parquet"), 0, 0)
    with pytest.raises(pa.ArrowNotImplementedError):
        list(read_group(parquet, 0, ["n"], 16, no_file))


def test_a_shard_of_large_images_has_row_groups_that_are_limited_in_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shard_file, "ROW_GROUP_BYTES", 32 * MEGABYTE)
    store = ShardStore(tmp_path / "out")
    store.create()
    store.commit(0, large_images(80, MEGABYTE), {})
    store.commit(1, pa.table({"n": range(1000)}), {})
    metadata = pq.read_metadata(store.path(0))
    assert metadata.num_row_groups == 3 and metadata.num_rows == 80
    assert pq.read_metadata(store.path(1)).num_row_groups == 1
    assert store.read(0, ["n", "text"])["n"].to_pylist() == list(range(80))
