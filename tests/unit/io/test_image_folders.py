"""Folders of image files as inputs, with a table beside them and without one."""

import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from run_batch.io.inputs.open_files import open_files
from run_batch.io.inputs.source import InputError, Source

NAMES = ["b/2.JPG", "_DSC1.JPG", "a.png", "b/1.jpeg", "c/d/x.webp", "b.jpg"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in NAMES:
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).touch()
    for name in (".hidden.jpg", "._a.jpg", "__a.jpg", "_thumbs/a.jpg", "notes.txt"):
        (tmp_path / "in" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "in" / name).touch()
    return tmp_path / "in"


def read(source: Source, columns: list[str]) -> list[dict[str, object]]:
    batches = source.cursor(columns, 2).read(0, source.num_rows)
    return [row for batch in batches for row in batch.records.to_pylist()]


@pytest.mark.parametrize("pattern", ["", "**/*.[jJpw]*"])
def test_a_row_is_a_file_in_the_order_of_paths_and_its_path_is_its_id(folder: Path, pattern: str) -> None:
    source = open_files([str(folder / pattern)], None)
    assert source.row_names(0, 6) == sorted(NAMES) and source.folder == folder
    assert read(source, ["label", "image"])[2] == {"label": None, "image": "b.jpg"}
    assert read(source, ["label"])[3:] == [{"label": "b"}, {"label": "b"}, {"label": "d"}]
    assert [batch.start for batch in source.cursor(["image"], 2).read(1, 5)] == [1, 3]


def test_one_image_is_a_row_and_a_list_keeps_its_order(folder: Path) -> None:
    assert open_files([str(folder / "a.png")], None).row_names(0, 1) == ["a.png"]
    source = open_files([str(folder / "c"), str(folder / "b")], None)
    assert source.row_names(0, 3) == ["c/d/x.webp", "b/1.jpeg", "b/2.JPG"]


def test_folders_behind_links_are_listed_once_and_links_to_nowhere_are_refused(folder: Path) -> None:
    (folder / "0").symlink_to("b")
    (folder / "again").symlink_to(".")
    assert open_files([str(folder)], None).row_names(0, 6) == sorted(NAMES)
    (folder / "gone.jpg").symlink_to("nowhere")
    with pytest.raises(InputError, match=r"gone\.jpg is a link that leads nowhere"):
        open_files([str(folder)], None)


def test_a_name_that_is_not_utf8_is_refused(folder: Path) -> None:
    open(os.fsencode(folder) + b"/\xff.png", "wb").close()
    with pytest.raises(InputError, match="is not UTF-8; rename it"):
        open_files([str(folder)], None)


def test_images_that_sort_behind_the_old_ones_add_a_part_and_others_change_the_old_one(folder: Path) -> None:
    first = open_files([str(folder)], None)
    (folder / "d.png").touch()
    grown = open_files([str(folder)], None, first.index)
    assert list(grown.parts[:1]) == list(first.parts) and [part.rows for part in grown.parts] == [6, 1]
    (folder / "e.png").touch()
    again = open_files([str(folder)], None, grown.index)
    assert list(again.parts[:2]) == list(grown.parts)
    (folder / "a2.png").touch()
    assert open_files([str(folder)], None, grown.index).parts[0] != grown.parts[0]


def test_folders_that_are_called_like_splits_are_splits(tmp_path: Path) -> None:
    for name in ("train/cat/1.png", "test/cat/2.png", "train/dog/3.png", "test_4.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    with pytest.raises(InputError, match=r"input\.split is not set"):
        open_files([str(tmp_path)], None)
    assert open_files([str(tmp_path)], None, split="train").row_names(0, 2) == ["train/cat/1.png", "train/dog/3.png"]
    assert open_files([str(tmp_path)], None, split="test+train[1:]").row_names(0, 2) == [
        "test/cat/2.png",
        "train/dog/3.png",
    ]
    assert open_files([str(tmp_path)], None, split="all").num_rows == 4


def test_a_table_beside_images_is_read_and_not_the_images(folder: Path) -> None:
    pq.write_table(pa.table({"n": [1]}), folder / "rows.parquet")
    assert open_files([str(folder)], None).schema.names == ["n"]
    assert open_files([str(folder)], "images").num_rows == 6


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_metadata_gives_the_rows_and_their_images(folder: Path, kind: str) -> None:
    rows = [{"file_name": name, "question": f"what is {name}?"} for name in ("2.JPG", "./1.jpeg")]
    path = folder / "b" / f"metadata.{kind}"
    if kind == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif kind == "csv":
        path.write_text("file_name,question\n" + "".join(f"{row['file_name']},{row['question']}\n" for row in rows))
    else:
        pq.write_table(pa.Table.from_pylist(rows), path)
    source = open_files([str(folder)], None)
    assert source.schema.names == ["image", "file_name", "question"]
    assert read(source, ["question", "image"])[0] == {"question": "what is 2.JPG?", "image": "b/2.JPG"}
    assert source.row_names(1, 2) == [f"b/metadata.{kind}:1"]
    (folder / "b" / "1.jpeg").unlink()
    with pytest.raises(InputError, match=r"images that are not below .*: b/\./1\.jpeg \(row 1\)"):
        open_files([str(folder)], None)
    assert open_files([str(folder)], None, source.index).num_rows == 2, "a share does not look again"
    assert open_files([str(path)], None).schema.names == ["file_name", "question"]


def test_metadata_that_names_no_images_is_refused(folder: Path) -> None:
    (folder / "metadata.csv").write_text("name,question\na.png,what?\n")
    with pytest.raises(InputError, match=r"no usable column file_name; columns: name, question"):
        open_files([str(folder)], None)


def test_json_beside_images_is_refused_for_it_could_be_either(folder: Path) -> None:
    (folder / "annotations.json").write_text("{}")
    with pytest.raises(InputError, match=r"is images, .*is jsonl|is jsonl, .*is images"):
        open_files([str(folder)], None)
    assert open_files([str(folder)], "images").num_rows == 6
