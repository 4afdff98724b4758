"""Rows of Parquet files and Hugging Face datasets, read from any row on."""

import glob
import os
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from run_batch.io.inputs.huggingface import HfSource, is_saved_dataset
from run_batch.io.inputs.input_files import find_files
from run_batch.io.inputs.parquet import ParquetSource
from run_batch.io.inputs.source import InputError, LostInputError, Source


def write(path: Path, start: int, stop: int, row_group: int = 7) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(
        pa.table({"n": list(range(start, stop)), "text": ["x"] * (stop - start)}),
        path,
        row_group_size=row_group,
    )


def numbers(source: Source, start: int, stop: int, batch_rows: int = 4) -> list[int]:
    found: list[int] = []
    position = start
    for batch in source.cursor(["n"], batch_rows).read(start, stop):
        assert batch.start == position and 0 < batch.records.num_rows <= batch_rows
        assert batch.records.schema.names == ["n"]
        position += batch.records.num_rows
        found += batch.records.column(0).to_pylist()
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path / "in" / "b.parquet", 20, 45)
    write(tmp_path / "in" / "a.parquet", 0, 20)
    write(tmp_path / "in" / "sub" / "c.parquet", 45, 50)
    write(tmp_path / "in" / "_hidden" / "d.parquet", 900, 950)
    (tmp_path / "in" / "_SUCCESS").touch()
    return tmp_path / "in"


def test_any_stretch_of_rows_can_be_read_across_files_and_row_groups(folder: Path) -> None:
    source = ParquetSource(str(folder))
    assert source.num_rows == 50
    for start in range(0, 50, 3):
        for stop in range(start, 51, 5):
            assert numbers(source, start, stop) == list(range(start, stop))


def test_rows_are_named_by_file_and_row(folder: Path) -> None:
    source = ParquetSource(str(folder))
    assert source.row_names(19, 21) == ["a.parquet:19", "b.parquet:0"]
    assert source.row_names(49, 50) == ["sub/c.parquet:4"]


def test_rows_are_named_alike_however_their_folder_is_written(folder: Path) -> None:
    for path in (str(folder), f"{folder}/", f"file://{folder}", f"file://{folder}/"):
        source = ParquetSource(path)
        assert source.row_names(0, 1) + source.row_names(49, 50) == ["a.parquet:0", "sub/c.parquet:4"], path
    for path in (f"{folder}/sub/c.parquet", f"file://{folder}/sub/c.parquet"):
        assert ParquetSource(path).row_names(4, 5) == ["c.parquet:4"], path


def test_file_and_glob_and_url(folder: Path) -> None:
    assert ParquetSource(str(folder / "b.parquet")).num_rows == 25
    assert numbers(ParquetSource(str(folder / "*.parquet")), 0, 45) == list(range(45))
    source = ParquetSource(f"file://{folder}/a.parquet")
    assert numbers(source, 3, 9) == list(range(3, 9))


@pytest.mark.parametrize("pattern", ["", "**/*.parquet"])
def test_folders_behind_links_are_read_once_each(folder: Path, pattern: str) -> None:
    write(folder.parent / "elsewhere" / "year" / "m.parquet", 50, 60)
    (folder / "linked").symlink_to(folder.parent / "elsewhere")
    (folder / "a-year").symlink_to(folder / "linked" / "year")  # the same folder again, from another side
    (folder / "a-sub").symlink_to("sub")
    (folder / "sub" / "up").symlink_to("..")
    (folder.parent / "elsewhere" / "round").symlink_to(folder)
    (folder / "_ignored").symlink_to(folder.parent)
    for path in (folder, folder.parent / "link to all"):
        if path != folder:
            path.symlink_to(folder)
        source = ParquetSource(str(path / pattern))
        names = [name.split(":")[0] for name in source.row_names(0, source.num_rows)]
        assert list(dict.fromkeys(names)) == ["a-year/m.parquet", "a.parquet", "b.parquet", "sub/c.parquet"]
        assert sorted(numbers(source, 0, source.num_rows)) == list(range(60))


@pytest.mark.parametrize(
    "pattern",
    [
        *(
            "*.parquet",
            "**/*.parquet",
            "*/*.parquet",
            "**/c.parquet",
            "**/sub/*",
            "*/**/*.parquet",
            "s?b/**",
            "[ab].parquet",
        ),
        *("sub/c.*", "su*/[!d].parquet", "**/sub/**/*.parquet", "**/**/*.parquet", "deep/*/sub/*", "_hidden/*.parquet"),
    ],
)
def test_a_glob_matches_what_globs_match(folder: Path, pattern: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write(folder / "deep" / "er" / "sub" / "e.parquet", 50, 51)
    (folder / "linked").symlink_to("sub")  # nothing new but under `**/c.parquet`, where the folder's own name counts
    found = [Path(p) for p in glob.glob(f"{folder}/{pattern}", recursive=True) if Path(p).is_file()]
    hidden = pattern.startswith("_")
    expected = {p for p in found if "linked" not in p.parts and (hidden or not any(n[0] == "_" for n in p.parts))}
    assert set(map(Path, find_files(f"{folder}/{pattern}").paths)) == expected
    monkeypatch.chdir(folder)
    assert {folder / p for p in find_files(pattern).paths} == expected


def test_a_glob_finds_a_folder_by_the_name_of_its_link(folder: Path) -> None:
    write(folder / "2024" / "d.parquet", 50, 51)
    (folder / "latest").symlink_to("2024")
    assert find_files(f"{folder}/**/latest/*.parquet").paths == [f"{folder}/latest/d.parquet"]
    assert find_files(f"{folder}/*/d.parquet").paths == [f"{folder}/2024/d.parquet"]


def test_links_among_many_folders_take_no_more_time_than_the_folders(tmp_path: Path) -> None:
    for i in range(12):
        write(tmp_path / f"f{i:02d}" / "a.parquet", i, i + 1)
        for j in range(12):
            (tmp_path / f"f{i:02d}" / f"to{j}").symlink_to(tmp_path / f"f{j:02d}")
    names = [f"{tmp_path}/f{i:02d}/a.parquet" for i in range(12)]
    assert find_files(str(tmp_path)).paths == find_files(f"{tmp_path}/**/*.parquet").paths == names


def test_what_is_neither_a_file_nor_a_folder_is_refused_without_opening_it(folder: Path) -> None:
    os.mkfifo(folder / "sub" / "fifo.parquet")
    for path in (folder, folder / "**/*.parquet", folder / "sub" / "fifo.parquet"):
        with pytest.raises(InputError, match=r"fifo\.parquet is neither a file nor a folder"):
            find_files(str(path))


def test_a_file_url_is_a_local_path(folder: Path) -> None:
    (folder / "linked").symlink_to("sub")
    source = ParquetSource(f"file://{folder}")
    assert source.folder == folder and source.num_rows == 50


def test_a_file_that_is_there_under_two_names_is_refused(folder: Path) -> None:
    (folder / "latest.parquet").symlink_to("b.parquet")
    for path in (folder, folder / "*.parquet"):
        with pytest.raises(InputError, match=r"in/b\.parquet and .*in/latest\.parquet are the same file"):
            ParquetSource(str(path))
    assert ParquetSource(str(folder / "l*.parquet")).row_names(0, 1) == ["latest.parquet:0"]
    assert ParquetSource(str(folder / "latest.parquet")).num_rows == 25


@pytest.mark.parametrize("name", ["gone", "gone.parquet"])
def test_a_link_that_leads_nowhere_is_told(folder: Path, name: str) -> None:
    (folder / name).symlink_to("/nonexistent/folder")
    with pytest.raises(InputError, match=rf"in/{name}(:| is a link that leads nowhere)"):
        ParquetSource(str(folder))
    (folder / "round").symlink_to("round")
    with pytest.raises(InputError, match=r"in/(round|gone)"):
        ParquetSource(str(folder / "*" if name.endswith("t") else folder))


def test_a_folder_that_cannot_be_listed_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scandir = os.scandir

    def refuse(path: str) -> object:
        if path.endswith("sub"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(InputError, match=r"in/sub cannot be listed: Permission denied"):
        ParquetSource(str(folder))


def test_a_folder_called_like_a_file_is_a_folder(folder: Path) -> None:
    write(folder / "d.parquet" / "part-0.parquet", 50, 52)
    source = ParquetSource(str(folder))
    assert source.num_rows == 52 and "d.parquet/part-0.parquet:1" in source.row_names(0, 52)


def test_other_data_in_a_file_are_told_by_its_digest(folder: Path) -> None:
    before = ParquetSource(str(folder)).parts
    assert ParquetSource(str(folder)).parts == before
    write(folder / "a.parquet", 0, 21)
    now = ParquetSource(str(folder)).parts
    assert [part.file for old, part in zip(before, now, strict=True) if part.digest != old.digest] == ["a.parquet"]


def test_what_is_wrong_with_the_input_is_said(folder: Path) -> None:
    with pytest.raises(InputError, match=r"no such file or folder; did you mean a\.parquet"):
        ParquetSource(str(folder / "aa.parquet"))
    with pytest.raises(InputError, match="no Parquet file"):
        ParquetSource(str(folder / "*.nothing"))
    (folder / "e.parquet").write_bytes(b"not parquet")
    with pytest.raises(InputError, match=r"e\.parquet cannot be read as Parquet"):
        ParquetSource(str(folder))


def test_a_file_cut_short_while_the_job_runs_is_named(folder: Path) -> None:
    source = ParquetSource(str(folder))
    content = (folder / "b.parquet").read_bytes()
    (folder / "b.parquet").write_bytes(content[:100] + b"\0" * 50)
    with pytest.raises(InputError, match=r"b\.parquet (is damaged|has changed)"):
        numbers(source, 0, 50)


def test_saved_datasets_are_read_with_their_order_and_splits(tmp_path: Path) -> None:
    table = datasets.Dataset.from_dict({"n": list(range(30)), "text": ["x"] * 30})
    table.shuffle(seed=1).save_to_disk(str(tmp_path / "one"))
    datasets.DatasetDict({"train": table, "test": table.select([4, 2])}).save_to_disk(str(tmp_path / "two"))
    assert is_saved_dataset(tmp_path / "one") and is_saved_dataset(tmp_path / "two")
    one = HfSource(str(tmp_path / "one"), None, None)
    assert numbers(one, 0, 30) == table.shuffle(seed=1)["n"]
    assert numbers(one, 11, 17) == table.shuffle(seed=1)["n"][11:17]
    assert numbers(HfSource(str(tmp_path / "two"), "test", None), 0, 2) == [4, 2]
    with pytest.raises(InputError, match=r"input\.split 'dev': .* has the splits train, test"):
        HfSource(str(tmp_path / "two"), "dev", None)


def test_files_that_are_known_already_are_looked_at_when_they_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "ab":
        pq.write_table(pa.table({"n": [1, 2, 3]}), tmp_path / f"{name}.parquet")
    before = ParquetSource(str(tmp_path))
    opened: list[str] = []
    open_file = pq.ParquetFile
    monkeypatch.setattr(pq, "ParquetFile", lambda path, **named: opened.append(path) or open_file(path, **named))
    again = ParquetSource(str(tmp_path), before.index)
    assert (again.num_rows, again.parts, again.schema) == (6, before.parts, before.schema)
    assert opened == []

    os.utime(tmp_path / "a.parquet", (1, 1))  # the same data, copied anew
    assert [batch.records["n"].to_pylist() for batch in again.cursor(["n"], 8).read(0, 3)] == [[1, 2, 3]]
    pq.write_table(pa.table({"n": [4, 5, 6]}), tmp_path / "b.parquet")
    with pytest.raises(LostInputError, match=r"b\.parquet has changed since the job started"):
        list(again.cursor(["n"], 8).read(3, 6))
    pq.write_table(pa.table({"n": [7]}), tmp_path / "c.parquet")
    assert ParquetSource(str(tmp_path), before.index).num_rows == 7, "the index is of other files"
    assert ParquetSource(str(tmp_path), b"{damaged").num_rows == 7
