"""The first look at a large file is taken once, however many processes begin, and again when the file changes."""

import json
import multiprocessing
import os
import tarfile
import time
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import pytest

from run_batch.io.inputs import first_look_cache, json_lines
from run_batch.io.inputs.file_format import FileFacts
from run_batch.io.inputs.open_files import open_files

ROWS = [
    {"id": f"{n:03d}", "n": n if n % 2 else n + 0.5, "mixed": n if n else "x", "deep": {"a": [n]}} for n in range(50)
]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(first_look_cache, "_LEAST_BYTES", 0)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "run-batch" / "first-looks"


def write(path: Path, kind: str, age: float = 60) -> Path:
    path.parent.mkdir(exist_ok=True)
    path = path.with_suffix(f".{kind}")
    if kind == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    elif kind == "csv":
        path.write_text("id,n\n" + "".join(f"{row['id']},{row['n']}\n" for row in ROWS))
    else:
        for row in ROWS:
            (path.parent / f"{row['id']}.json").write_text(json.dumps(row))
        with tarfile.open(path, "w") as archive:
            for row in ROWS:
                archive.add(path.parent / f"{row['id']}.json", f"{row['id']}.json")
    os.utime(path, (time.time() - age, time.time() - age))
    return path


@pytest.mark.parametrize("kind", ["jsonl", "csv", "tar"])
def test_what_is_kept_of_a_file_reads_it_as_a_first_look_does(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    path = write(tmp_path / "in" / "rows", kind)
    first = open_files([str(path)], None)
    assert len(list(cache.glob("*.json"))) == 1
    for module in ("json_lines.JsonLinesFormat", "csv_files.CsvFormat", "tar_shards.TarFormat"):
        monkeypatch.delattr(f"run_batch.io.inputs.{module}.look_at")
    again = open_files([str(path)], None)
    assert (again.schema, again.unusable, again.parts) == (first.schema, first.unusable, first.parts)
    names = [name for name in first.schema.names if name not in first.unusable]
    rows = [list(source.cursor(names, 7).read(20, 45)) for source in (first, again)]
    assert [b.records.to_pylist() for b in rows[0]] == [b.records.to_pylist() for b in rows[1]]


def test_a_file_that_changes_is_looked_at_again(tmp_path: Path) -> None:
    path = write(tmp_path / "in" / "rows", "jsonl")
    assert open_files([str(path)], None).num_rows == 50
    with open(path, "a") as file:
        file.write('{"id": "x"}\n')
    assert open_files([str(path)], None).num_rows == 51


def test_a_file_that_has_just_been_written_is_not_kept(tmp_path: Path, cache: Path) -> None:
    open_files([str(write(tmp_path / "in" / "rows", "jsonl", age=0))], None)
    assert not list(cache.glob("*.json"))


@pytest.mark.parametrize("content", [b"", b"[1, 2]", b"{", b"\xff"])
def test_what_is_damaged_in_the_cache_is_made_anew(tmp_path: Path, cache: Path, content: bytes) -> None:
    path = write(tmp_path / "in" / "rows", "jsonl")
    open_files([str(path)], None)
    (kept,) = cache.glob("*.json")
    kept.write_bytes(content)
    assert open_files([str(path)], None).num_rows == 50 and len(kept.read_bytes()) > 100


def test_a_cache_that_cannot_be_written_to_is_done_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert open_files([str(write(tmp_path / "in" / "rows", "jsonl"))], None).num_rows == 50


def test_whoever_waits_for_a_large_file_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(tmp_path / "in" / "rows", "jsonl")
    monkeypatch.setattr(first_look_cache, "_LARGE_BYTES", path.stat().st_size)
    for _ in range(2):
        open_files([str(path)], None)
    assert [record.message.partition(",")[0] for record in caplog.records] == [f"reads {path} once"]


def _open(path: Path, log: Path, all_missed: Barrier) -> None:
    look, read, is_first = json_lines.JsonLinesFormat.look_at, first_look_cache.CachedFormat._read, True

    def logged(*arguments: Any) -> FileFacts:
        with open(log, "a") as file:
            file.write("look\n")
        time.sleep(0.3)  # a look at a large file takes its time
        return look(*arguments)

    def read_together(*arguments: Any) -> FileFacts | None:
        nonlocal is_first
        found, waits, is_first = read(*arguments), is_first, False
        if waits:
            assert found is None
            all_missed.wait(60)
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_lines.JsonLinesFormat, "look_at", logged)
        patch.setattr(first_look_cache.CachedFormat, "_read", read_together)
        assert open_files([str(path)], None).num_rows == 50


def test_of_many_processes_that_begin_at_once_one_looks(tmp_path: Path) -> None:
    path, log = write(tmp_path / "in" / "rows", "jsonl"), tmp_path / "log"
    context = multiprocessing.get_context("fork")
    all_missed = context.Barrier(16)
    processes = [context.Process(target=_open, args=(path, log, all_missed)) for _ in range(16)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * 16
    assert log.read_text() == "look\n"
