"""Files in JSON that hold one object with all rows in it are named as what they are, with lines that convert them."""

import contextlib
import gzip
import json
import os
from pathlib import Path
from typing import Any

import pytest

from run_batch.io.inputs.open_files import open_files
from run_batch.io.inputs.source import InputError, Source

ROWS = [{"q": "a", "n": 1}, {"q": "b", "n": 2}]
MESSAGES = {"id": "a", "messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]}
OBJECTS: dict[str, tuple[Any, str]] = {
    "columns": ({"q": ["a", "b"], "n": [1, 2]}, "a dict of columns in JSON"),
    "pandas": ({"q": {"0": "a", "1": "b"}, "n": {"0": 1, "1": 2}}, "as pandas writes it"),
    "rows": ({"r1": ROWS[0], "r2": ROWS[1]}, "a dict of rows in JSON"),
    "held": ({"version": "1", "data": ROWS}, "an object in JSON that holds rows in 'data'"),
}


def rows_of(source: Source, *columns: str) -> list[dict[str, Any]]:
    batches = source.cursor(columns, 9).read(0, source.num_rows)
    return [row for batch in batches for row in batch.records.to_pylist()]


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("name", OBJECTS)
def test_an_object_with_all_rows_is_refused_with_lines_that_convert_it(
    tmp_path: Path, name: str, indent: int | None
) -> None:
    content, said = OBJECTS[name]
    (tmp_path / "data.json").write_text(json.dumps(content, indent=indent))
    with pytest.raises(InputError) as caught:
        open_files([str(tmp_path / "data.json")], None)
    message = str(caught.value)
    assert said in message and ("let the name of the file end with .jsonl" in message) == (indent is None)
    lines = [line[4:] for line in message.splitlines() if line.startswith("    ")]
    with contextlib.chdir(tmp_path):
        exec("\n".join(lines), {})
    found = rows_of(open_files([str(tmp_path / "data.jsonl")], None), "q", "n")
    assert found == ROWS
    os.replace(tmp_path / "data.json", tmp_path / "row.jsonl")
    if indent is None:
        assert open_files([str(tmp_path / "row.jsonl")], None).num_rows == 1


@pytest.mark.parametrize(
    "row", [{"q": "a"}, {"images": ["a"], "q": ["b"]}, {"a": {"x": 1}, "b": {"y": 1}}, {"turns": ["a", "b"]}, MESSAGES]
)
def test_a_file_of_one_row_is_one(tmp_path: Path, row: dict[str, Any]) -> None:
    (tmp_path / "row.json.gz").write_bytes(gzip.compress(json.dumps(row).encode()))
    assert rows_of(open_files([str(tmp_path / "row.json.gz")], None), *row) == [row]


def test_a_folder_may_hold_a_file_for_each_row(tmp_path: Path) -> None:
    row = {"images": ["a.png", "b.png"], "labels": ["x", "y"]}
    for number in range(2):
        (tmp_path / f"{number}.json").write_text(json.dumps(row))
    assert rows_of(open_files([str(tmp_path)], None), *row) == [row, row]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("prompts.txt", "a?\nb {c}?\n", "is plain text, not rows"),
        ("begun.txt", "[INST] a?\n[INST] b?\n", "is plain text, not rows"),
        ("lists.jsonl", '["a?", "1"]\n["b {c}?", "2"]\n', "is a list in JSON in each line, not JSON Lines"),
    ],
)
def test_lines_of_something_else_are_refused_with_lines_that_convert_them(
    tmp_path: Path, name: str, text: str, said: str
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=said) as caught:
        open_files([str(tmp_path / name)], None)
    lines = [line[4:] for line in str(caught.value).splitlines() if line.startswith("    ")]
    with contextlib.chdir(tmp_path):
        exec("\n".join(lines).replace('"NAME", "NAME"', '"prompt", "n"'), {})
    (made,) = (path for path in tmp_path.iterdir() if path.name != name)
    found = [row["prompt"] for row in rows_of(open_files([str(made)], None), "prompt")]
    assert found == (["a?", "b {c}?"] if "[INST]" not in text else text.splitlines())


def test_lines_that_are_no_rows_are_still_named(tmp_path: Path) -> None:
    (tmp_path / "python.jsonl").write_text("{'q': 'a'}\n")
    with pytest.raises(InputError, match=r"this is how Python shows a dict: json\.dumps writes it"):
        open_files([str(tmp_path / "python.jsonl")], None)
    for text, said in (
        ('{"q": "a"\n{"q": "b"}\n', "line 1: not JSON"),
        ('{\n "q": "a"\n}', "line 1: not JSON.*a row is one line"),
    ):
        (tmp_path / "rows.json").write_text(text)
        with pytest.raises(InputError, match=said):
            open_files([str(tmp_path / "rows.json")], None)


@pytest.mark.parametrize(("name", "text"), [("käse 1.csv", "id,q\n1,käse\n"), ("a.jsonl", '{"q": "käse"}\n')])
def test_a_file_in_latin_1_is_refused_with_lines_that_convert_it(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError) as caught:
        open_files([str(tmp_path / name)], None)
    with contextlib.chdir(tmp_path):
        exec("\n".join(line[4:] for line in str(caught.value).splitlines()[1:]), {})
    stem, suffix = os.path.splitext(name)
    assert rows_of(open_files([str(tmp_path / f"{stem}.utf8{suffix}")], None), "q") == [{"q": "käse"}]


def test_a_url_of_no_file_system_and_missing_credentials_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(variable)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    for url, said in {
        "foo://bucket/rows.parquet": r"begins with foo://, which is no file system; there are s3://",
        "gs://bucket/rows.parquet": r"needs gcsfs for gs:// : pip install gcsfs",
        "s3://bucket/rows.parquet": r"no credentials for S3 were found; set AWS_ACCESS_KEY_ID",
    }.items():
        with pytest.raises(InputError, match=said):
            open_files([url], None)
