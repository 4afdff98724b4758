"""Cursors: what one gives is what fresh reads give, and what it has read it does not read again."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from counted_files import CountedFileSystem, bytes_read_locally, write_images
from hypothesis import given, settings
from hypothesis import strategies as st

from run_batch.io.inputs.huggingface import HfSource
from run_batch.io.inputs.parquet import ParquetSource
from run_batch.io.inputs.source import Cursor, LostInputError, Source

ROWS = 60


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> list[Source]:
    """The numbers from 0, in files of several row groups, of one, of none, in parts of a split, and as a data set."""
    folder = tmp_path_factory.mktemp("in")
    for name, numbers, group in (
        ("a", range(33), 7),
        ("b", range(0), 1),
        ("c", range(33, 40), 9),
        ("d", range(40, 60), 20),
    ):
        pq.write_table(pa.table({"n": pa.array(numbers, pa.int64())}), folder / f"{name}.parquet", row_group_size=group)
    (folder / "split").mkdir()
    swapped = pa.table({"n": [*range(25, 60), *range(25)]})
    pq.write_table(swapped, folder / "split" / "train.parquet", row_group_size=8)
    datasets.Dataset.from_dict({"n": list(range(ROWS))}).save_to_disk(str(folder / "saved"))
    return [
        ParquetSource(str(folder / "*.parquet")),
        ParquetSource(str(folder / "split"), split="train[35:]+train[:35]"),
        HfSource(str(folder / "saved"), None, None),
    ]


def read(cursor: Cursor, start: int, stop: int, batches: int) -> list[int]:
    """The numbers of a read of which at most so many batches are taken."""
    found: list[int] = []
    for batch, _ in zip(cursor.read(start, stop), range(batches), strict=False):
        assert batch.start == start + len(found) and 0 < batch.records.num_rows <= 4
        found += batch.records["n"].to_pylist()
    return found


@settings(max_examples=150, deadline=None)
@given(
    st.integers(0, 2), st.lists(st.tuples(st.integers(0, ROWS), st.integers(0, ROWS), st.integers(1, 99)), max_size=8)
)
def test_any_reads_by_one_cursor_give_what_fresh_ones_give(
    sources: list[Source], which: int, reads: list[tuple[int, int, int]]
) -> None:
    cursor = sources[which].cursor(["n"], 4)
    for start, stop, batches in reads:
        found = read(cursor, start, stop, batches)
        assert found == list(range(start, max(start, stop)))[: len(found)]
        assert batches < 99 or len(found) == max(0, stop - start)
    cursor.close()
    assert read(cursor, 0, ROWS, 99) == list(range(ROWS)), "a closed cursor does not read again"


def test_reading_can_begin_where_row_groups_and_files_do(sources: list[Source]) -> None:
    files, split, saved = ([row for rows in source.starts() for row in rows] for source in sources)
    assert files == [0, 7, 14, 21, 28, 33, 40]
    # Rows 35 to 59 of the file, in groups of 8, and then its rows 0 to 34.
    assert split == [0, 5, 13, 21, 25, 33, 41, 49, 57]
    assert saved == list(range(ROWS))


def test_many_equal_row_groups_are_told_as_one_range(tmp_path: Path) -> None:
    pq.write_table(pa.table({"n": range(1000)}), tmp_path / "rows.parquet", row_group_size=3)
    assert len(list(ParquetSource(str(tmp_path / "rows.parquet")).starts())) == 3


def count(path: Path, remote: bool, work: Callable[[Source], None]) -> int:
    """The bytes that some reading reads."""
    source = ParquetSource(f"counted://{path}" if remote else str(path))
    before = CountedFileSystem.bytes_read if remote else bytes_read_locally()
    work(source)
    return (CountedFileSystem.bytes_read if remote else bytes_read_locally()) - before


@pytest.mark.parametrize("remote", [False, True], ids=["local", "remote"])
@pytest.mark.parametrize("row_group", [64, 2000])
def test_a_file_is_read_once_however_many_shards_it_is_cut_into(tmp_path: Path, remote: bool, row_group: int) -> None:
    size = write_images(tmp_path / "rows.parquet", 2000, 20_000, row_group)

    def read_shards(source: Source) -> None:
        images, ids = source.cursor(["image", "prompt", "uid"], 16), source.cursor(["uid"], 1024)
        for shard in range(0, 2000, 100):
            assert sum(batch.records.num_rows for batch in images.read(shard, shard + 100)) == 100
            assert sum(batch.records.num_rows for batch in ids.read(shard, shard + 100)) == 100

    assert size * 0.9 < count(tmp_path / "rows.parquet", remote, read_shards) < size * 1.05


def test_a_small_row_group_of_a_remote_file_is_one_request(tmp_path: Path) -> None:
    write_images(tmp_path / "rows.parquet", 640, 2_000, 64)
    source = ParquetSource(f"counted://{tmp_path / 'rows.parquet'}")
    before = CountedFileSystem.requests
    assert sum(batch.records.num_rows for batch in source.cursor(["uid", "image", "prompt"], 16).read(0, 640)) == 640
    assert CountedFileSystem.requests - before <= 12, "to open it, and one for each of ten row groups"


@pytest.mark.parametrize("remote", [False, True], ids=["local", "remote"])
def test_the_first_rows_of_a_large_row_group_cost_pages_of_it(tmp_path: Path, remote: bool) -> None:
    size = write_images(tmp_path / "rows.parquet", 2000, 50_000, 2000)

    def read_first(source: Source) -> None:
        next(source.cursor(["image", "prompt"], 16).read(0, 16))

    assert count(tmp_path / "rows.parquet", remote, read_first) < size / 10


@pytest.mark.parametrize("remote", [False, True], ids=["local", "remote"])
def test_rows_of_other_row_groups_are_jumped_over_in_the_open_file(tmp_path: Path, remote: bool) -> None:
    size = write_images(tmp_path / "rows.parquet", 2000, 20_000, 100)

    def read_few(source: Source) -> None:
        cursor = source.cursor(["image"], 16)
        for row in (0, 1000, 1020, 1900):
            list(cursor.read(row, row + 10))

    assert count(tmp_path / "rows.parquet", remote, read_few) < size * 0.2


def test_a_large_row_group_takes_no_more_memory_than_small_ones(tmp_path: Path) -> None:
    peaks = []
    for row_group in (64, 4000):
        write_images(tmp_path / "rows.parquet", 2000, 50_000, row_group)
        code = f"""
from run_batch.io.inputs.parquet import ParquetSource
source = ParquetSource({str(tmp_path / "rows.parquet")!r})
cursor = source.cursor(["image", "prompt"], 16)
print(sum(batch.records.num_rows for row in range(0, 2000, 500) for batch in cursor.read(row, row + 500)))
print(open("/proc/self/status").read().split("VmHWM:")[1].split()[0])
"""
        rows, peak = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout.split()
        assert rows == "2000"
        peaks.append(int(peak))
    assert peaks[1] < 1.15 * peaks[0], f"{peaks[1]} kB for one row group, {peaks[0]} kB for groups of 64 rows"


def test_a_file_that_goes_or_changes_while_it_is_open_is_told(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    for change, said in (
        (path.unlink, "no longer exists"),
        (lambda: shutil.copy(tmp_path / "other", path), "has changed"),
    ):
        pq.write_table(pa.table({"n": range(10)}), path)
        pq.write_table(pa.table({"n": range(10, 30)}), tmp_path / "other")
        cursor = ParquetSource(str(path)).cursor(["n"], 2)
        list(cursor.read(0, 4))
        change()
        with pytest.raises(LostInputError, match=said):
            list(cursor.read(4, 8))
