"""Shards: complete or absent, in their order, with metadata that can be read without their rows."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from run_batch.io.outputs import shards
from run_batch.io.outputs.shards import ShardStore


def table(errors: list[str | None]) -> pa.Table:
    return pa.table({"row_id": [str(i) for i in range(len(errors))], "error": pa.array(errors, pa.string())})


@pytest.fixture
def store(tmp_path: Path) -> ShardStore:
    store = ShardStore(tmp_path / "out")
    store.create()
    return store


def test_a_committed_shard_is_read_back_with_its_metadata(store: ShardStore) -> None:
    store.commit(3, table([None, "kind: bad", None]), {"run_batch.model": "m"})
    store.commit(100_000, table([None]), {})
    assert store.committed() == [3, 100_000]
    assert store.metadata(3) == {"run_batch.model": "m"} and store.metadata(100_000) == {}
    assert pq.read_table(store.folder / "part-000003.parquet")["error"].to_pylist() == [None, "kind: bad", None]
    assert (store.folder / "part-100000.parquet").exists()


def test_readers_of_data_sets_see_shards_alone(store: ShardStore) -> None:
    store.commit(0, table([None]), {})
    (store.run_folder / "part-000001.parquet.9.tmp").write_bytes(b"half")
    store.mark_success()
    assert pq.read_table(store.folder).num_rows == 1
    assert store.is_complete()


def test_a_shard_that_cannot_be_finished_leaves_nothing(store: ShardStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shards.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        store.commit(0, table([None]), {})
    assert store.committed() == [] and list(store.run_folder.iterdir()) == []


def test_what_a_killed_run_left_is_removed_and_what_other_shares_write_is_not(tmp_path: Path) -> None:
    stores = [ShardStore(tmp_path / "out", f"shares/{index}-of-2") for index in range(2)]
    for store in stores:
        store.create()
        (store.own_folder / "part-000001.parquet.host-9.tmp").write_bytes(b"half")
    stores[0].discard_unfinished()
    assert [list(store.own_folder.iterdir()) != [] for store in stores] == [False, True]


def test_writability_is_told_without_making_anything(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert ShardStore(tmp_path / "a" / "b").is_writable()
    assert not ShardStore(tmp_path / "file" / "b").is_writable()
    assert not (tmp_path / "a").exists()


def test_whether_a_folder_can_be_written_to_is_tried_and_leaves_nothing_behind(tmp_path: Path) -> None:
    assert ShardStore(tmp_path / "new" / "out").is_writable()
    (tmp_path / "file").touch()
    assert not ShardStore(tmp_path / "file" / "out").is_writable()
    assert not ShardStore(Path("/proc/out")).is_writable()
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
