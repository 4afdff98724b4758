"""The folder of images is looked at before a job starts: one that holds none is most likely not mounted."""

import errno
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import jobs
from run_batch.io import transient
from run_batch.jobs.job.config import load_config
from run_batch.jobs.job.errors import JobError, RunError
from run_batch.jobs.job.prepare import prepare

_STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
_PATHS: dict[str, pa.Array] = {
    "text": pa.array(["a.png"]),
    "dictionary": pa.array(["a.png"]).dictionary_encode(),
    "list": pa.array([["a.png"]]),
    "struct": pa.array([{"bytes": None, "path": "a.png"}], _STRUCT),
    "list of structs": pa.array([[{"bytes": None, "path": "a.png"}]], pa.list_(_STRUCT)),
}
_NO_PATHS: dict[str, pa.Array] = {
    "bytes": pa.array([b"a"]),
    "struct of bytes": pa.array([{"bytes": b"a"}]),
    "features": pa.array([[[1.0, 2.0]]]),
    "null": pa.nulls(1),
}


def prepared(folder: Path, images: pa.Array, **tables: Any) -> None:
    columns = {"uid": ["a"], "image": images, "prompt": ["is it even?"]}
    prepare(load_config(jobs.write_job(folder, columns, **{"input": {"media_root": "media"}, **tables})))


@pytest.mark.parametrize("images", _PATHS.values(), ids=_PATHS)
def test_an_empty_folder_is_refused_where_rows_can_name_files_in_it(tmp_path: Path, images: pa.Array) -> None:
    (tmp_path / "media").mkdir()
    with pytest.raises(JobError, match=r"^input\.media_root media: the folder is empty"):
        prepared(tmp_path, images)
    (tmp_path / "media" / "sub").mkdir()
    prepared(tmp_path, images)


@pytest.mark.parametrize("images", _NO_PATHS.values(), ids=_NO_PATHS)
def test_an_empty_folder_does_no_harm_where_no_row_can_name_a_file(tmp_path: Path, images: pa.Array) -> None:
    (tmp_path / "media").mkdir()
    prepared(tmp_path, images)


def test_an_empty_folder_is_refused_where_conversations_can_name_files_in_it(tmp_path: Path) -> None:
    (tmp_path / "media").mkdir()
    columns = {"uid": ["a"], "prompt": [[{"role": "user", "content": "is it even?"}]]}
    tables = {"input": {"media_root": "media", "image_column": ""}, "prompt": {"template": None, "chat": True}}
    with pytest.raises(JobError, match="the folder is empty"):
        prepare(load_config(jobs.write_job(tmp_path, columns, **tables)))


@pytest.mark.parametrize("make", [lambda path: None, lambda path: path.write_bytes(b"")], ids=["missing", "file"])
def test_what_is_no_folder_is_refused_whatever_the_rows_hold(tmp_path: Path, make: Any) -> None:
    make(tmp_path / "media")
    with pytest.raises(JobError, match=r"^input\.media_root media: no such folder"):
        prepared(tmp_path, _NO_PATHS["bytes"])


@pytest.mark.parametrize("number", [errno.ESTALE, errno.EIO, errno.EHOSTDOWN, errno.ETIMEDOUT])
def test_a_folder_that_the_storage_does_not_give_is_no_fault_of_the_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    scandir = os.scandir

    def fail(path: Any = ".") -> Any:
        if str(path).endswith("media"):
            raise OSError(number, os.strerror(number), path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", fail)
    monkeypatch.setattr(transient, "STORAGE_PAUSES", (0.001,))
    with pytest.raises(RunError, match=os.strerror(number)) as caught:
        prepared(tmp_path, _PATHS["text"])
    assert caught.value.exit_code == (1 if number == errno.EIO else 74)


def test_settings_of_videos_are_refused_where_no_row_can_have_one(tmp_path: Path) -> None:
    tables = {
        "input": {"image_column": ""},
        "prompt": {"template": None, "chat": True},
        "engine": {"media_io_kwargs": {"video": {"fps": 1}}},
    }
    asked: list[Any] = ["is it even?", [{"role": "user", "content": "is it even?"}]]
    texts, messages = (
        load_config(jobs.write_job(tmp_path / str(n), {"uid": ["a"], "prompt": [asked[n]]}, **tables)) for n in (0, 1)
    )
    prepare(messages)
    with pytest.raises(JobError, match=r"engine\.media_io_kwargs does nothing without videos: name their column"):
        prepare(texts)
