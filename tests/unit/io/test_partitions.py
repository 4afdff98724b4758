"""Folders that are called like `lang=de` are columns."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from run_batch.io.inputs.open_files import open_files
from run_batch.io.inputs.source import Source


def write(path: Path, **columns: list[object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path, row_group_size=2)


def read(source: Source, *columns: str) -> list[tuple[object, ...]]:
    batches = source.cursor(columns, 2).read(0, source.num_rows)
    return [tuple(row.values()) for batch in batches for row in batch.records.to_pylist()]


def test_partitions_are_columns_of_text(tmp_path: Path) -> None:
    write(tmp_path / "lang=de" / "year=2024" / "0.parquet", n=[1, 2, 3])
    write(tmp_path / "lang=pt%2FBR" / "year=__HIVE_DEFAULT_PARTITION__" / "0.parquet", n=[4])
    source = open_files([str(tmp_path)], None)
    rows = [(1, "de", "2024"), (2, "de", "2024"), (3, "de", "2024"), (4, "pt/BR", None)]
    assert read(source, "n", "lang", "year") == rows
    assert read(source, "year", "lang") == [row[:0:-1] for row in rows], "no column of the files is asked for"
    again = open_files([str(tmp_path)], None, source.index)
    assert read(again, "lang", "n") == [(lang, n) for n, lang, _ in rows]
    assert read(open_files([str(tmp_path / "lang=de")], None), "n", "year")[0] == (1, "2024")


def test_a_column_of_the_files_counts_before_a_folder(tmp_path: Path) -> None:
    write(tmp_path / "lang=de" / "0.parquet", n=[1], lang=["from the file"])
    assert read(open_files([str(tmp_path)], None), "lang") == [("from the file",)]


def test_a_partition_that_a_file_is_not_in_is_no_column_for_it(tmp_path: Path) -> None:
    write(tmp_path / "lang=de" / "0.parquet", n=[1])
    write(tmp_path / "1.parquet", n=[2])
    source = open_files([str(tmp_path)], None)
    assert "is not in" in source.unusable["lang"] and read(source, "n") == [(2,), (1,)]


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_other_formats_make_no_columns_of_folders(tmp_path: Path, kind: str) -> None:
    (tmp_path / "lang=de").mkdir()
    (tmp_path / "lang=de" / f"0.{kind}").write_text('{"n": 1}\n' if kind == "jsonl" else "n\n1\n")
    assert open_files([str(tmp_path)], None).schema.names == ["n"]
