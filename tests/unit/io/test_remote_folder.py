"""A folder behind a URL: what is copied there, what is missing, and which failures may pass."""

import sys
from pathlib import Path

import fsspec
import pytest

from run_batch.io.outputs.remote_folder import MissingPackageError, RemoteError, RemoteFolder


def test_files_are_copied_replaced_and_removed(tmp_path: Path) -> None:
    folder, files = RemoteFolder("memory://bucket/results/"), fsspec.filesystem("memory")
    folder.check()
    assert files.find("/bucket") == [], "the file of the check is left"
    (tmp_path / "part").write_bytes(b"a" * 100)
    folder.put(tmp_path / "part", "part")
    (tmp_path / "part").write_bytes(b"b" * 10)
    folder.put(tmp_path / "part", "part")
    folder.write("_SUCCESS", b"")
    assert (files.cat("/bucket/results/part"), files.cat("/bucket/results/_SUCCESS")) == (b"b" * 10, b"")
    for _ in range(2):
        folder.remove("_SUCCESS")
    assert files.find("/bucket") == ["/bucket/results/part"] and folder.moved > 5


def test_an_error_for_a_file_that_is_not_there_is_none_when_it_is_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = RemoteFolder("memory://bucket/removed")

    def refuse(path: str) -> None:
        raise ValueError("no such entry")

    monkeypatch.setattr(folder._files, "rm_file", refuse)
    folder.remove("_SUCCESS")
    folder.write("_SUCCESS", b"")
    with pytest.raises(RemoteError, match="_SUCCESS cannot be removed: ValueError: no such entry"):
        folder.remove("_SUCCESS")


def test_a_copy_of_another_size_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = RemoteFolder("memory://bucket/short")
    (tmp_path / "part").write_bytes(b"a" * 100)
    monkeypatch.setattr(folder._files, "put_file", lambda *_, **__: folder._files.pipe_file("/bucket/short/part", b"a"))
    with pytest.raises(RemoteError, match="part has 1 bytes") as caught:
        folder.put(tmp_path / "part", "part")
    assert caught.value.passes


def test_a_package_that_is_missing_is_named_with_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(MissingPackageError, match=r"needs gcsfs for gs:// : pip install gcsfs"):
        RemoteFolder("gs://bucket/results")


def test_secrets_in_a_url_are_hidden() -> None:
    with pytest.raises(RemoteError) as caught:
        RemoteFolder("nope://user:hunter2@bucket/x")
    assert "hunter2" not in str(caught.value)


def test_a_hub_that_cannot_be_asked_is_told_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_" + "a" * 30)
    folder = RemoteFolder("hf://datasets/org/name")
    from huggingface_hub import HfApi

    def refuse(self: HfApi) -> None:
        raise PermissionError("bad token")

    monkeypatch.setattr(HfApi, "whoami", refuse)
    with pytest.raises(RemoteError, match=r"hf://datasets/org/name: cannot be written to: .*bad token") as caught:
        folder.check()
    assert not caught.value.passes
