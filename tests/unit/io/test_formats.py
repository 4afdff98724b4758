"""Which files an input is made of, and of which format they are."""

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from run_batch.io.inputs.open_files import open_files
from run_batch.io.inputs.source import InputError, Source


def write(path: Path, *numbers: int) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [{"n": str(n)} for n in numbers]
    if path.suffix in (".parquet", ".bin"):
        pq.write_table(pa.table({"n": [row["n"] for row in rows]}), path)
    elif path.suffix == ".csv":
        path.write_text("n\n" + "".join(f"{n}\n" for n in numbers))
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def numbers(source: Source) -> list[int]:
    batches = source.cursor(["n"], 100).read(0, source.num_rows)
    return [int(n) for batch in batches for n in batch.records["n"].to_pylist()]


@pytest.mark.parametrize("suffix", ["jsonl", "ndjson", "json", "csv", "parquet"])
def test_files_of_a_folder_are_read_in_the_order_of_their_names(tmp_path: Path, suffix: str) -> None:
    for name, number in (("b", 1), ("sub/a", 2), ("a", 0)):
        write(tmp_path / f"{name}.{suffix}", number)
    write(tmp_path / "_note.jsonl", 9)
    (tmp_path / "notes.txt").write_text("…")
    for path in (tmp_path, tmp_path / "**" / f"*.{suffix}"):
        source = open_files([str(path)], None)
        assert numbers(source) == [0, 1, 2]
        assert source.row_names(2, 3) == [f"sub/a.{suffix}:0"] and source.folder == tmp_path


def test_files_of_a_list_are_read_in_its_order_and_named_below_their_common_folder(tmp_path: Path) -> None:
    paths = [
        write(tmp_path / "in" / "b" / "x.jsonl", 0, 1),
        write(tmp_path / "in" / "a" / "deep" / "test.jsonl", 2),
        str(tmp_path / "in" / "c"),
    ]
    write(tmp_path / "in" / "c" / "train.jsonl", 3)
    write(tmp_path / "in" / "c" / "y.jsonl", 4)
    source = open_files(paths, None)
    assert numbers(source) == [0, 1, 2, 3, 4] and source.folder == tmp_path / "in"
    assert source.row_names(0, 5) == [
        "b/x.jsonl:0",
        "b/x.jsonl:1",
        "a/deep/test.jsonl:0",
        "c/train.jsonl:0",
        "c/y.jsonl:0",
    ]
    assert [part.file for part in source.parts] == ["b/x.jsonl", "a/deep/test.jsonl", "c/train.jsonl", "c/y.jsonl"]
    assert numbers(open_files(paths, None, split="test")) == [2]
    assert numbers(open_files([f"file://{path}" for path in paths], None)) == [0, 1, 2, 3, 4]


def test_a_file_that_a_list_names_twice_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", 1)
    (tmp_path / "link.jsonl").symlink_to("a.jsonl")
    for paths in ([path, path], [path, str(tmp_path / "link.jsonl")], [path, str(tmp_path / "a*")]):
        with pytest.raises(InputError, match=r"there twice|same file"):
            open_files(paths, None)


def test_lists_over_several_file_systems_are_refused(tmp_path: Path) -> None:
    import fsspec

    fsspec.filesystem("memory").pipe("/one/a.jsonl", b'{"n": 1}\n')
    with pytest.raises(InputError, match="of one file system"):
        open_files([write(tmp_path / "a.jsonl", 1), "memory://one/a.jsonl"], None)


def test_files_of_several_formats_are_refused_unless_the_format_is_set(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", 1)
    write(tmp_path / "b.csv", 2)
    for paths in ([str(tmp_path)], [str(tmp_path / "*")], [str(tmp_path / "a.jsonl"), str(tmp_path / "b.csv")]):
        with pytest.raises(
            InputError, match=r'a\.jsonl is jsonl, .*b\.csv is csv; set input\.format to "jsonl" or "csv"'
        ):
            open_files(paths, None)
    assert numbers(open_files([str(tmp_path)], "jsonl")) == [1]
    assert numbers(open_files([str(tmp_path)], "csv")) == [2]


def test_json_beside_rows_of_another_format_is_no_row(tmp_path: Path) -> None:
    (tmp_path / "dataset_infos.json").write_text('{\n "default": 1\n}')
    for name in ("a.parquet", "a.jsonl"):
        write(tmp_path / name, 1)
        assert numbers(open_files([str(tmp_path)], None)) == [1]
        (tmp_path / name).unlink()


def test_the_first_bytes_tell_what_a_name_does_not(tmp_path: Path) -> None:
    write(tmp_path / "parquet.bin", 1)
    (tmp_path / "lines.txt").write_text('{"n": "2"}\n')
    assert numbers(open_files([str(tmp_path / "parquet.bin")], None)) == [1]
    assert numbers(open_files([str(tmp_path / "lines.txt")], None)) == [2]
    (tmp_path / "words.yaml").write_text("some words\n")
    with pytest.raises(InputError, match=r"neither its name nor its first bytes tell its format"):
        open_files([str(tmp_path / "words.yaml")], None)


def test_a_folder_without_rows_says_what_is_there(tmp_path: Path) -> None:
    for name in "dcba":
        (tmp_path / f"{name}.md").write_text("x")
    with pytest.raises(InputError, match=r"no file of rows there, but a\.md, b\.md, c\.md, …"):
        open_files([str(tmp_path)], None)


@pytest.mark.parametrize(
    ("name", "head", "format_name", "said"),
    [
        ("rows.parquet", b"\x89PNG\r\n\x1a\n\0\0", None, r"rows\.parquet is a PNG file, not a Parquet file"),
        (
            "rows.jsonl",
            b"PAR1\x15\0\x15\0",
            None,
            r'is a Parquet file, not JSON Lines; set input\.format = "parquet" to read it',
        ),
        (
            "rows.csv",
            b"PK\x03\x04\x14\0[Content_Types].xml",
            None,
            r'is an Excel file.*\n    pd\.read_excel\("rows\.csv"\)',
        ),
        (
            "rows.xlsx",
            b"PK\x03\x04\x14\0[Content_Types].xml",
            None,
            r'pd\.read_excel\("rows\.xlsx"\)\.to_parquet\("rows\.p',
        ),
        ("rows.orc", b"ORC\0\0\x0a", None, r"is an ORC file, not rows; input\.path takes Parquet, JSON Lines, CSV"),
        ("rows.jsonl", b"SQLite format 3\0", "jsonl", r"is an SQLite data base, not JSON Lines"),
        ("rows.csv", b"%PDF-1.7\n", None, r"is a PDF file"),
        ("rows.jsonl", b"<!DOCTYPE html><html>", None, r"is a page in HTML"),
        ("rows.jsonl", b"\0\x01\x02 words", None, r"is a binary file of no known format"),
    ],
)
def test_a_file_of_another_format_is_named_for_what_it_is(
    tmp_path: Path, name: str, head: bytes, format_name: str | None, said: str
) -> None:
    (tmp_path / name).write_bytes(head)
    with pytest.raises(InputError, match=f"(?s){said}"):
        open_files([str(tmp_path / name)], format_name)


def test_text_that_begins_like_the_name_of_another_format_is_text(tmp_path: Path) -> None:
    for first in ("BMI", "ORCID", "GIF8", "PARITY"):
        (tmp_path / "rows.csv").write_text(f"{first},n\nx,1\n")
        assert open_files([str(tmp_path / "rows.csv")], None).schema.names == [first, "n"]


@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_names_of_files_tell_splits_in_all_formats(tmp_path: Path, suffix: str) -> None:
    for split, number in (("train", 1), ("test", 2)):
        write(tmp_path / "data" / f"{split}-00000-of-00001.{suffix}", number, number)
    with pytest.raises(InputError, match=r"input\.split is not set"):
        open_files([str(tmp_path)], None)
    source = open_files([str(tmp_path)], None, split="test[1:]+train")
    assert numbers(source) == [2, 1, 1] and source.row_names(0, 1) == [f"data/test-00000-of-00001.{suffix}:1"]
    (tmp_path / "README.md").write_text(f"---\nconfigs:\n- config_name: x\n  data_files: data/te*.{suffix}\n---\n")
    assert numbers(open_files([str(tmp_path)], None, name="x")) == [2, 2]


def test_what_an_index_says_of_another_format_is_not_believed(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text('{"n": "1"}\n')
    index = open_files([str(tmp_path)], "csv").index
    assert open_files([str(tmp_path / "rows.csv")], "jsonl", index).schema.names == ["n"]


def test_files_that_come_behind_the_others_only_add_parts(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", 0, 1)
    before = list(open_files([str(tmp_path)], None).parts)
    write(tmp_path / "b.jsonl", 2)
    assert list(open_files([str(tmp_path)], None).parts)[:1] == before
    write(tmp_path / "a.jsonl", 0, 7)
    assert open_files([str(tmp_path)], None).parts[0].digest != before[0].digest


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "rows"])
def test_the_lines_that_convert_a_file_leave_it_as_it_is(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text('[{"a": 1}, {"a": 2}]')
    with pytest.raises(InputError) as caught:
        open_files([str(tmp_path / name)], "jsonl" if name == "rows" else None)
    lines = textwrap.dedent(str(caught.value).partition("\n")[2])
    assert "json.load" in lines
    subprocess.run([sys.executable, "-c", lines], cwd=tmp_path, check=True)
    assert (tmp_path / name).read_text() == '[{"a": 1}, {"a": 2}]'
    (made,) = [path for path in tmp_path.iterdir() if path.name != name]
    assert made.read_text() == '{"a": 1}\n{"a": 2}\n'
