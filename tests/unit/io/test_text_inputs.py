"""Rows of JSON Lines and CSV: any of them can be sought, and no value is another than the file says."""

import bz2
import gzip
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from run_batch.io.inputs import line_blocks, text_stream
from run_batch.io.inputs.open_files import open_files
from run_batch.io.inputs.source import InputError, LostInputError, Source


def opened(path: Path, format_name: str | None = None, index: bytes = b"") -> Source:
    return open_files([str(path)], format_name, index)


def read(source: Source, start: int = 0, stop: int | None = None, batch_rows: int = 4) -> list[dict[str, Any]]:
    stop = source.num_rows if stop is None else stop
    batches = source.cursor(source.schema.names, batch_rows).read(start, stop)
    return [row for batch in batches for row in batch.records.to_pylist()]


def write_lines(path: Path, rows: Sequence[object]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line_blocks, "_BLOCK_BYTES", 64)
    monkeypatch.setattr(text_stream, "_LOCAL_BYTES", 50)


PACKED: dict[str, Callable[[bytes], bytes]] = {
    "": lambda content: content,
    ".gz": lambda content: gzip.compress(content[:300]) + gzip.compress(content[300:]),
    ".zst": lambda content: pa.compress(content, "zstd", asbytes=True),
    ".bz2": bz2.compress,
}


@pytest.mark.parametrize("packed", PACKED)
@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_any_stretch_of_rows_is_what_a_read_from_the_beginning_gives(
    tmp_path: Path, small_blocks: None, packed: str, kind: str
) -> None:
    rows = [{"n": str(n), "text": f'käse\nand, "{"x" * (n % 37)}"'} for n in range(60)]
    if kind == "jsonl":
        write_lines(tmp_path / "rows.jsonl", rows)
    else:
        cells = "".join('"{}","{}"\r\n'.format(row["n"], row["text"].replace('"', '""')) for row in rows)
        (tmp_path / "rows.csv").write_bytes(b"\xef\xbb\xbfn,text\r\n" + cells.encode())
    content = (tmp_path / f"rows.{kind}").read_bytes()
    path = tmp_path / f"rows.{kind}{packed}"
    path.write_bytes(PACKED[packed](content))
    source = opened(path)
    assert source.num_rows == 60 and read(source) == rows
    begins = [row for found in source.starts() for row in found]
    assert begins == [0] if packed else len(begins) > 10
    for start in range(0, 60, 7):
        for stop in range(start + 1, 61, 13):
            assert read(source, start, stop) == rows[start:stop]
    assert source.row_names(59, 60) == [f"rows.{kind}{packed}:59"]
    again = opened(path, index=source.index)
    assert read(again, 33, 40) == rows[33:40] and again.parts == source.parts


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


def same(found: Any, written: Any) -> bool:
    """Whether a value is what was written; what a struct has beyond it is null."""
    if isinstance(written, dict) and isinstance(found, dict):
        return all(same(value, written.get(name)) for name, value in found.items()) and set(written) <= set(found)
    if isinstance(written, list) and isinstance(found, list):
        return len(found) == len(written) and all(map(same, found, written))
    if isinstance(found, float) and type(written) is int:
        return int(found) == written
    return type(found) is type(written) and bool(found == written)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.dictionaries(st.sampled_from("abc"), VALUES, max_size=3), min_size=1, max_size=8))
def test_a_json_value_is_read_as_it_is_or_its_column_is_refused(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]]
) -> None:
    source = opened(write_lines(tmp_path_factory.mktemp("in") / "rows.jsonl", rows))
    assert source.num_rows == len(rows)
    usable = [name for name in source.schema.names if name not in source.unusable]
    batches = source.cursor(usable, 3).read(0, len(rows)) if usable else iter(())
    found = [row for batch in batches for row in batch.records.to_pylist()]
    assert len(found) == (len(rows) if usable else 0)
    for written, row in zip(rows, found, strict=bool(usable)):
        for name in usable:
            value = row[name]
            if isinstance(value, str) and isinstance(written.get(name), list | dict):
                value = json.loads(value)
            assert same(value, written.get(name)), name
    for name in source.unusable:
        assert len({type(row[name]) for row in rows if row.get(name) is not None}) > 1


def test_a_column_has_the_type_of_all_its_rows_and_not_of_the_first(tmp_path: Path, small_blocks: None) -> None:
    rows: list[dict[str, Any]] = [{"id": n, "score": n, "late": None} for n in range(40)]
    rows += [{"id": "x", "score": 0.5, "late": "2024-01-01"}]
    source = opened(write_lines(tmp_path / "rows.jsonl", rows))
    assert source.schema.field("score").type == pa.float64() and source.schema.field("late").type == pa.string()
    assert "an integer in line 1 of rows.jsonl, text in line 41 of rows.jsonl" in source.unusable["id"]
    batch = next(source.cursor(["late"], 4).read(40, 41))
    assert batch.records.to_pylist() == [{"late": "2024-01-01"}]


@pytest.mark.parametrize("number", [2**53 + 1, -(2**60), 2**70])
def test_integers_that_a_double_does_not_hold_make_no_column_with_fractions(tmp_path: Path, number: int) -> None:
    source = opened(write_lines(tmp_path / "rows.jsonl", [{"n": 0.5}, {"n": number}]))
    assert "in line 2 of rows.jsonl; no type holds" in source.unusable["n"]
    source = opened(write_lines(tmp_path / "rows.jsonl", [{"n": 0.5}, {"n": 2**53}]))
    assert [row["n"] for row in read(source)] == [0.5, 2**53]


def test_messages_that_agree_on_no_type_are_json_text(tmp_path: Path) -> None:
    text = [{"role": "user", "content": "hi"}]
    parts = [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]
    write_lines(tmp_path / "a.jsonl", [{"messages": text}, {"messages": text}])
    assert read(opened(tmp_path / "a.jsonl"))[0] == {"messages": text}
    write_lines(tmp_path / "b.jsonl", [{"messages": parts}])
    rows = read(opened(tmp_path))
    assert [json.loads(row["messages"]) for row in rows] == [text, text, parts]


def test_empty_lines_and_windows_line_ends_are_no_rows(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_bytes(b'\xef\xbb\xbf{"n": 1}\r\n\r\n  \n{"n": NaN}\n\n{"n": 3}')
    source = opened(tmp_path / "rows.jsonl")
    assert [row["n"] for row in read(source)][::2] == [1, 3] and source.num_rows == 3
    (tmp_path / "rows.csv").write_bytes(b"\r\nn,m\r\n\r\n007,\r\n\r\nNULL,null")
    assert read(opened(tmp_path / "rows.csv")) == [{"n": "007", "m": None}, {"n": "NULL", "m": "null"}]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.jsonl", b'{"a": 1}\n{"a": 2\n{"a": 3}\n', r"a\.jsonl, line 2: not JSON: .* at column 8$"),
        ("a.jsonl", b'{"a": 1}\n\n{"a": "tru', r"line 3: not JSON: .*cut off here"),
        ("a.jsonl", b'{"a": 1}\n[1]\n', r"line 2: expected an object, found a list"),
        ("a.jsonl", b'{"a": 1}\n{"a": "\xff"}\n', r"line 2: text that is not UTF-8"),
        ("a.jsonl", b'{"a": "\\ud83d"}\n', r"line 1: text with half of a surrogate pair"),
        ("a.jsonl", b'{"a": 1}\n' + '{"a": 2}'.encode("utf-16-le") + b"\n", r"binary file of no known format"),
        ("a.jsonl", b'{"a": "\xed\xa0\xbd"}\n', r"line 1: text that is not UTF-8"),
        ("a.jsonl", b"[" * 5000 + b"\n", r"JSON"),
        (
            "a.json",
            b'[{"a": 1},\n {"a": 2}]\n',
            r"one list in JSON, not JSON Lines.*\n    rows = json\.load\(open\(.a\.json.\)\)\n    open\(.a\.jsonl.",
        ),
        ("a.json", b'{\n "a": 1\n}\n', r"line 1: not JSON: .*a row is one line"),
        ("a.csv", b"a,b\n1,2\n3\n", r"a\.csv, line 3: 1 cells, where the first line names 2"),
        ("a.csv", b'a,b\n"x\ny",2\n3,4,5\n', r"line 4: 3 cells"),
        ("a.csv", b'a,b\n1,2\n3,"open\n4,5\n', r"line 3: not CSV"),
        ("a.csv", b'a,b\n1,"x"y\n', r"line 2: not CSV"),
        ("a.csv", b"a,b\n1,2\n\xe4,2\n", r"line 3: text that is not UTF-8"),
        ("a.csv", b"", r"is empty"),
        ("a.csv", "a,b\n1,2\n".encode("utf-16"), r"a\.csv is text in UTF-16"),
    ],
)
def test_a_line_that_is_no_row_is_named(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=f"(?s){said}"):
        opened(tmp_path / name)


def test_a_compressed_file_that_is_cut_off_is_damaged(tmp_path: Path) -> None:
    content = gzip.compress(b"".join(b'{"n": %d}\n' % n for n in range(100_000)))
    (tmp_path / "rows.jsonl.gz").write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=r"rows\.jsonl\.gz"):
        opened(tmp_path / "rows.jsonl.gz")


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("a.csv", "id,n"),
        ("a.tsv", "id\tn"),
        ("a.csv", "id;n"),
        ("A.TSV", "id\tn,m"),
        ("a.csv", "id|n"),
        ("a.csv", 'id;"n, m"'),
    ],
)
def test_cells_are_split_by_what_splits_the_first_line(tmp_path: Path, name: str, first: str) -> None:
    sign = first[2]
    (tmp_path / name).write_text(f"{first}\n007{sign}a b \n")
    assert list(read(opened(tmp_path / name))[0].values()) == ["007", "a b "]


def test_a_column_that_the_first_line_names_twice_is_unusable(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,n,n\n1,2,3\n")
    source = opened(tmp_path / "a.csv")
    assert "occurs 2 times" in source.unusable["n"]
    assert next(source.cursor(["id"], 4).read(0, 1)).records.to_pylist() == [{"id": "1"}]


def test_a_file_that_changes_after_it_was_looked_at_is_refused(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "rows.jsonl", [{"n": n} for n in range(10)])
    source = opened(path)
    index = source.index
    write_lines(path, [{"n": n} for n in range(11)])
    for changed in (source, opened(path, index=index)):
        with pytest.raises(LostInputError, match="has changed since the job started"):
            read(changed)


def test_a_copy_in_the_place_of_a_recorded_file_is_read_on(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "rows.jsonl", [{"n": n} for n in range(10)])
    index = opened(path).index
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content)
    assert read(opened(path, index=index), 4, 6) == [{"n": 4}, {"n": 5}]


def test_remote_lines_are_read_as_local_ones(tmp_path: Path) -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.pipe("/lines/a.jsonl", b'{"n": 1}\n{"n": 2}\n')
    memory.pipe("/lines/b.jsonl.gz", gzip.compress(b'{"n": 3}\n'))
    source = open_files(["memory://lines"], None)
    assert [row["n"] for row in read(source)] == [1, 2, 3]
    assert source.row_names(2, 3) == ["b.jsonl.gz:0"]
