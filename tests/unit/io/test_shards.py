"""Shards: complete or absent, in their order, with metadata that can be read without their rows."""

from collections.abc import Callable
from pathlib import Path

import datasets
import pandas as pd
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


def test_dataset_readers_see_shards_alone(store: ShardStore) -> None:
    store.commit(0, table([None]), {})
    (store.run_folder / "part-000001.parquet.9.tmp").write_bytes(b"half")
    store.mark_success()
    assert pq.read_table(store.folder).num_rows == 1
    assert store.is_complete()


def load_dataset(folder: Path) -> pd.DataFrame:
    cache = str(folder.parent / "cache")
    return datasets.load_dataset(str(folder), split="train", cache_dir=cache).to_pandas()


def read_with_pyarrow(folder: Path) -> pd.DataFrame:
    return pq.read_table(folder).to_pandas()


every_reader = pytest.mark.parametrize("read", [load_dataset, pd.read_parquet, read_with_pyarrow])


@every_reader
def test_a_results_folder_opens_without_options_from_the_first_shard_on(
    store: ShardStore, read: Callable[[Path], pd.DataFrame]
) -> None:
    # More files than shards: `datasets` takes the commonest file format in a folder for that of its data.
    for index in range(20):
        share = store.run_folder / "shares" / f"{index}-of-20"
        share.mkdir(parents=True)
        for name in ("job.json", "progress.json", "commits.jsonl"):
            (share / name).write_text('{"not": "a row"}\n')
            (store.run_folder / f"{index}-{name}").write_text('{"not": "a row"}\n')
    for shards_there in (1, 2):
        store.commit(shards_there - 1, table([None, "kind: bad"]), {})
        rows = read(store.folder)
        assert list(rows.columns) == ["row_id", "error"] and len(rows) == 2 * shards_there
    store.mark_success()
    assert len(read(store.folder)) == 4


@every_reader
def test_rows_are_read_in_order_past_shard_100_000(store: ShardStore, read: Callable[[Path], pd.DataFrame]) -> None:
    for index in (100_000, 99_999, 0):
        store.commit(index, pa.table({"row_id": [str(index)], "error": pa.array([None], pa.string())}), {})
    assert read(store.folder)["row_id"].tolist() == ["0", "99999", "100000"]


def test_a_folder_of_an_earlier_version_is_told(tmp_path: Path) -> None:
    def is_of_earlier_layout(name: str, *files: str) -> bool:
        for file in files:
            (tmp_path / name / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name / file).touch()
        return ShardStore(tmp_path / name).is_of_earlier_layout()

    assert is_of_earlier_layout("unfinished", "_run/job.json")
    assert is_of_earlier_layout("complete", "_SUCCESS", "_run/job.json", "part-00000.parquet")
    assert is_of_earlier_layout("bookkeeping removed", "part-00000.parquet")
    assert not is_of_earlier_layout("of today", "_SUCCESS", ".run_batch/job.json", "part-000000.parquet")
    assert not is_of_earlier_layout("of others", "_run/notes.txt", "part-00000-af3.parquet", "part-1.parquet")
    assert not is_of_earlier_layout("not there")


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


def test_whether_a_folder_can_be_written_to_is_tried_and_leaves_nothing_behind(tmp_path: Path) -> None:
    assert ShardStore(tmp_path / "new" / "out").is_writable()
    (tmp_path / "file").touch()
    assert not ShardStore(tmp_path / "file" / "out").is_writable()
    assert not ShardStore(Path("/proc/out")).is_writable()
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
