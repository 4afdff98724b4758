"""Folders that are called like `lang=de` are columns."""

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.feather
import pyarrow.parquet as pq
import pytest

from run_batch.io.inputs.open_files import open_files
from run_batch.io.inputs.source import Source

FORMATS = ("parquet", "jsonl", "csv", "feather", "arrows")
Write = Callable[..., None]


@pytest.fixture(params=FORMATS)
def write(request: pytest.FixtureRequest) -> Write:
    """Writes columns into a file of each format; its suffix is the format's."""

    def write_file(path: Path, **columns: list[object]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path, table = path.with_suffix(f".{request.param}"), pa.table(columns)
        if request.param == "parquet":
            pq.write_table(table, path, row_group_size=2)
        elif request.param == "jsonl":
            path.write_text("".join(f"{json.dumps(row)}\n" for row in table.to_pylist()))
        elif request.param == "csv":
            pa.csv.write_csv(table, path)
        elif request.param == "feather":
            pa.feather.write_feather(table, path, chunksize=2)
        else:
            with pa.ipc.new_stream(path, table.schema) as stream:
                stream.write_table(table, 2)

    return write_file


def read(source: Source, *columns: str) -> list[tuple[object, ...]]:
    batches = source.cursor(columns, 2).read(0, source.num_rows)
    rows = [tuple(row.values()) for batch in batches for row in batch.records.to_pylist()]
    # CSV has text alone.
    return [tuple(int(cell) if cell in ("1", "2", "3", "4") else cell for cell in row) for row in rows]


def test_partitions_are_columns_of_text(tmp_path: Path, write: Write) -> None:
    write(tmp_path / "lang=de" / "year=2024" / "0.parquet", n=[1, 2, 3])
    write(tmp_path / "lang=pt%2FBR" / "year=__HIVE_DEFAULT_PARTITION__" / "0.parquet", n=[4])
    source = open_files([str(tmp_path)], None)
    rows = [(1, "de", "2024"), (2, "de", "2024"), (3, "de", "2024"), (4, "pt/BR", None)]
    assert read(source, "n", "lang", "year") == rows
    assert read(source, "year", "lang") == [row[:0:-1] for row in rows], "no column of the files is asked for"
    again = open_files([str(tmp_path)], None, source.index)
    assert read(again, "lang", "n") == [(lang, n) for n, lang, _ in rows]
    assert read(open_files([str(tmp_path / "lang=de")], None), "n", "year")[0] == (1, "2024")


def test_a_column_of_the_files_counts_before_a_folder(tmp_path: Path, write: Write) -> None:
    write(tmp_path / "lang=de" / "0.parquet", n=[1], lang=["from the file"])
    assert read(open_files([str(tmp_path)], None), "lang") == [("from the file",)]


def test_a_partition_that_a_file_is_not_in_is_no_column_for_it(tmp_path: Path, write: Write) -> None:
    write(tmp_path / "lang=de" / "0.parquet", n=[1])
    write(tmp_path / "1.parquet", n=[2])
    source = open_files([str(tmp_path)], None)
    if "lang" in source.unusable:
        assert "is not in" in source.unusable["lang"] and read(source, "n") == [(2,), (1,)]
    else:  # a key that a line lacks is null
        assert (tmp_path / "1.jsonl").exists() and read(source, "n", "lang") == [(2, None), (1, "de")]


def test_a_row_of_json_lines_counts_before_its_folder(tmp_path: Path) -> None:
    for name, lines in {
        "lang=de/0.jsonl": '{"n": 1, "lang": "at", "year": 1}\n{"n": 2, "year": 2}\n',
        "lang=fr/year=2024/1.jsonl": '{"n": 3}\n',
    }.items():
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text(lines)
    source = open_files([str(tmp_path)], None)
    assert read(source, "n", "lang") == [(1, "at"), (2, "de"), (3, "fr")]
    assert "integer in line 1 of lang=de/0.jsonl" in source.unusable["year"], "text of a folder is no number of a row"
    assert "text in the folders of lang=fr/year=2024/1.jsonl" in source.unusable["year"]
    source = open_files([str(tmp_path / "lang=de")], None)
    assert read(source, "year") == [(1,), (2,)]
