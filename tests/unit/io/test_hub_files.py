"""Data sets on the Hub that are read in place, at the commit that a job began with."""

import errno
import json
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hub import Hub, serving
from huggingface_hub import constants

from run_batch.io import transient
from run_batch.io.inputs.huggingface import HfSource
from run_batch.io.inputs.open_files import open_files
from run_batch.io.inputs.source import InputError, Source, UnreachableInputError

URL = "hf://datasets/org/rows"
ROWS = 4000


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with serving(monkeypatch) as server:
        yield server


def write(path: Path, start: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table({"n": range(start, start + ROWS), "text": [f"{row:0200}" for row in range(ROWS)]})
    pq.write_table(table, path, row_group_size=ROWS // 4, compression="none", use_dictionary=False)


def commit(folder: Path, first: int = 0) -> Path:
    """What was pushed: two files of a split, one of another."""
    for part in range(2):
        write(folder / "data" / f"train-0000{part}-of-00002.parquet", first + part * ROWS)
    write(folder / "data" / "test-00000-of-00001.parquet", 0)
    (folder / "README.md").write_text("A data set.\n")
    return folder


def numbers(source: Source, start: int = 0, stop: int | None = None) -> list[int]:
    batches = source.cursor(["n"], 500).read(start, source.num_rows if stop is None else stop)
    return [n for batch in batches for n in batch.records.column(0).to_pylist()]


def test_a_data_set_is_read_in_place_from_any_row_on(hub: Hub, tmp_path: Path) -> None:
    hub.push(commit(tmp_path / "first"))
    source = open_files([URL], None, split="train")
    assert numbers(source) == list(range(2 * ROWS))
    hub.ranges.clear()
    assert numbers(source, ROWS + 3500, ROWS + 3510) == list(range(ROWS + 3500, ROWS + 3510))
    asked = [[int(end) for end in part.removeprefix("bytes=").split("-")] for _, part in hub.ranges]
    assert {path for path, _ in hub.ranges} == {"data/train-00001-of-00002.parquet"}
    size = (tmp_path / "first" / "data" / "train-00001-of-00002.parquet").stat().st_size
    assert sum(last - first + 1 for first, last in asked) < size // 4, "other row groups and columns were read"
    assert source.row_names(0, 1) == ["data/train-00000-of-00002.parquet:0"]


def test_a_job_reads_the_commit_that_it_began_with(hub: Hub, tmp_path: Path) -> None:
    old = hub.push(commit(tmp_path / "first"))
    source = open_files([URL], None, split="train")
    new = hub.push(commit(tmp_path / "second", first=50_000))
    assert numbers(source)[0] == 0, "what is pushed while a run reads is not read"
    for looks_again in (False, True):
        again = open_files([URL], None, source.index, split="train", looks_again=looks_again)
        assert (again.parts, again.index) == (source.parts, source.index) and numbers(again)[0] == 0
    assert json.loads(source.index)["commits"] == {URL: f"{URL}@{old}"}
    assert numbers(open_files([URL], None, split="train"))[0] == 50_000
    for revision, first in ((old, 0), (new, 50_000), ("main", 50_000), ("refs/convert/parquet", 50_000)):
        named = open_files([f"{URL}@{revision}/data/train-*.parquet"], None, source.index)
        assert numbers(named)[0] == first, "another text of the URL is looked up"
        assert named.row_names(0, 1) == ["train-00000-of-00002.parquet:0"]


def test_a_path_in_a_repository_is_kept_however_it_is_written(hub: Hub, tmp_path: Path) -> None:
    hub.push(commit(tmp_path / "first"))
    write(tmp_path / "first" / "a b" / "x.parquet", 70_000)
    for path in ("/data/test-00000-of-00001.parquet", "/a b", "/a b/", "/a b/x.parquet", "/a b/*.parquet"):
        source = open_files([f"{URL}{path}"], None)
        assert source.num_rows == ROWS and numbers(source)[0] == (70_000 if "a b" in path else 0), path
    both = open_files([f"{URL}/a b/x.parquet", f"{URL}/data/test-00000-of-00001.parquet"], None)
    assert both.row_names(0, 1) + both.row_names(ROWS, ROWS + 1) == [
        "a b/x.parquet:0",
        "data/test-00000-of-00001.parquet:0",
    ]


def test_what_the_hub_does_not_have_is_said(hub: Hub, tmp_path: Path) -> None:
    hub.push(commit(tmp_path / "first"))
    for path in ("hf://datasets/org/other", f"{URL}@v2", "hf://datasets/org/other/a.parquet"):
        with pytest.raises(InputError, match=r"no such repository or revision on the Hub.*HF_TOKEN"):
            open_files([path], None)
    with pytest.raises(InputError, match="no such file"):
        open_files([f"{URL}/data/none.parquet"], None)
    with pytest.raises(InputError, match=r"holds the splits train \(2 files\), test"):
        open_files([URL], None)


def test_a_hub_that_is_busy_is_asked_again(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)
    monkeypatch.setattr(transient, "REMOTE_PAUSES", (0.0, 0.0))
    hub.push(commit(tmp_path / "first"))
    for failures in (1, 2):
        hub.failures = failures
        assert open_files([URL], None, split="train").num_rows == 2 * ROWS
    hub.failures = 10_000
    with pytest.raises(UnreachableInputError, match=r"cannot be read now: .*503"):
        open_files([URL], None)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # where nobody listens
    with pytest.raises(UnreachableInputError, match=r"cannot be read now: .*[Rr]efused"):
        open_files([URL], None)


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left"), OSError("Not enough disk space. Needed: 9 TiB")]
)
def test_a_data_set_that_does_not_fit_into_the_cache_is_said_to_be_readable_in_place(
    monkeypatch: pytest.MonkeyPatch, error: OSError
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("datasets.load_dataset", fail)
    with pytest.raises(InputError, match=r'input.path = "hf://datasets/org/rows" reads its files in place'):
        HfSource("org/rows", None, None)
