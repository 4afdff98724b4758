"""Inputs whose storage or network stumbles: read on from the same place, or said to be out of reach."""

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import datasets
import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from run_batch.io.inputs.huggingface import HfSource
from run_batch.io.inputs.input_files import find_files
from run_batch.io.inputs.parquet import ParquetSource
from run_batch.io.inputs.remote_file import RemoteFile
from run_batch.io.inputs.source import DamagedInputError, InputError, LostInputError, UnreachableInputError

ROWS = 4000


class Stumbling(MemoryFileSystem):
    """A file system in memory of which some calls fail: numbers of calls, counted from 1, and their exceptions."""

    protocol = "stumbling"
    cachable = False
    failures: dict[int, Exception] = {}  # noqa: RUF012
    calls = 0

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        stripped: str = super()._strip_protocol(path.removeprefix("stumbling:/"))
        return stripped

    @classmethod
    def count(cls) -> None:
        Stumbling.calls += 1
        if error := Stumbling.failures.get(cls.calls):
            raise error

    def open(self, path: str, *arguments: Any, **named: Any) -> Any:
        self.count()
        file = super().open(path, *arguments, **named)
        read = file.read

        def counted(size: int = -1) -> bytes:
            self.count()
            content: bytes = read(size)
            return content

        file.read = counted
        return file

    def info(self, path: str, **named: Any) -> Any:
        self.count()
        return super().info(path, **named)

    def find(self, path: str, *arguments: Any, **named: Any) -> Any:
        self.count()
        return super().find(path, *arguments, **named)


@pytest.fixture(autouse=True)
def remote() -> Iterator[str]:
    fsspec.register_implementation("stumbling", Stumbling, clobber=True)
    Stumbling.failures = {}
    Stumbling.store = {}
    Stumbling.pseudo_dirs = [""]
    for part in range(2):
        with MemoryFileSystem.open(Stumbling(), f"/in/{part}.parquet", "wb") as file:
            table = pa.table({"n": range(part * ROWS, (part + 1) * ROWS), "text": [os.urandom(200)] * ROWS})
            pq.write_table(table, file, row_group_size=ROWS // 4, compression="none", use_dictionary=False)
    Stumbling.calls = 0
    yield "stumbling://in"
    Stumbling.failures = {}


def numbers(path: str) -> list[int]:
    source = ParquetSource(path)
    batches = source.cursor(["n", "text"], 100).read(0, source.num_rows)
    return [n for batch in batches for n in batch.records.column(0).to_pylist()]


def once(error: Callable[[], Exception], call: int) -> None:
    Stumbling.calls, Stumbling.failures = 0, {call: error()}


STUMBLES: dict[str, Callable[[], Exception]] = {
    "cut off": lambda: aiohttp.ClientPayloadError("Response payload is not completed"),
    "reset": lambda: ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET)),
    "busy": lambda: OSError(errno.EBUSY, "Please reduce your request rate."),
}


@pytest.mark.parametrize("stumble", STUMBLES)
def test_a_failure_of_any_single_call_is_not_noticed(remote: str, stumble: str) -> None:
    assert numbers(remote) == list(range(2 * ROWS))
    calls = Stumbling.calls
    assert calls > 20
    for call in range(1, calls + 1):
        once(STUMBLES[stumble], call)
        assert numbers(remote) == list(range(2 * ROWS)), f"call {call} of {calls}"


@pytest.mark.parametrize("stumble", STUMBLES)
def test_a_failure_that_lasts_is_said_and_is_no_damage(remote: str, stumble: str) -> None:
    error = STUMBLES[stumble]()
    for first in (1, 3, 9, 20):
        Stumbling.calls, Stumbling.failures = 0, dict.fromkeys(range(first, 500), error)
        with pytest.raises(
            UnreachableInputError, match=r"cannot be read now: .*; it was tried several times"
        ) as caught:
            numbers(remote)
        assert str(error.args[-1]) in str(caught.value) and "in" in str(caught.value)


def test_a_file_of_which_too_little_comes_is_read_again() -> None:
    content = bytes(range(256)) * 40
    opened = 0

    def open_file() -> Any:
        nonlocal opened
        opened += 1
        file = MemoryFileSystem().open("/content", "rb")
        read = file.read
        file.read = lambda size: read(size)[: size // 2] if opened == 1 else read(size)
        return file

    MemoryFileSystem().pipe("/content", content)
    file = RemoteFile(open_file, "content")
    assert file.read(1000) == content[:1000] and opened == 2
    assert file.seek(-10, os.SEEK_END) == len(content) - 10
    assert (file.read(), file.read(), file.tell()) == (content[-10:], b"", len(content))
    file.close()
    assert file.closed


def test_what_does_not_pass_is_said_as_it_is(remote: str) -> None:
    Stumbling.failures = dict.fromkeys(range(500), PermissionError(errno.EACCES, "Access Denied"))
    with pytest.raises(InputError, match="cannot be read: Access Denied"):
        ParquetSource(remote + "/0.parquet")
    Stumbling.failures = {}
    with pytest.raises(InputError, match="no such file"):
        ParquetSource("stumbling://in/2.parquet")
    source = ParquetSource(remote)
    whole = MemoryFileSystem.cat_file(Stumbling(), "/in/1.parquet")
    Stumbling().pipe("/in/1.parquet", bytes(len(whole) // 2) + whole[len(whole) // 2 :])
    with pytest.raises(DamagedInputError, match=r"(?s)1.parquet is damaged: .* put a good copy"):
        list(source.cursor(["n"], 100).read(0, source.num_rows))
    Stumbling().rm("/in/1.parquet")
    with pytest.raises(LostInputError, match="no longer exists"):
        list(source.cursor(["n"], 100).read(0, source.num_rows))


def test_a_folder_stays_one_and_keeps_its_readme_where_its_listing_stumbles(remote: str) -> None:
    Stumbling().pipe("/in/README.md", b"---\nconfigs: []\n---\n")
    for call in range(1, 4):
        once(STUMBLES["reset"], call)
        found = find_files(remote)
        assert len(found.paths) == 2 and found.read_card().startswith("---")


@pytest.mark.parametrize("call", ["scandir", "stat"])
def test_a_mount_that_is_gone_is_out_of_reach(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    pq.write_table(pa.table({"n": range(10)}), folder / "a.parquet")
    source = ParquetSource(str(folder))
    failing = [OSError(errno.ESTALE, os.strerror(errno.ESTALE))] * 2
    real = getattr(os, call)

    def stumble(path: Any = ".", **named: Any) -> Any:
        if failing and str(path).startswith(str(folder)):
            raise failing.pop()
        return real(path, **named)

    monkeypatch.setattr(os, call, stumble)
    assert len(ParquetSource(str(folder)).row_names(0, 10)) == 10 and not failing
    failing += [OSError(errno.EHOSTDOWN, os.strerror(errno.EHOSTDOWN))] * 99
    with pytest.raises(UnreachableInputError, match="Host is down"):
        ParquetSource(str(folder))
    if call == "stat":
        with pytest.raises(UnreachableInputError, match="Host is down"):
            list(source.cursor(["n"], 5).read(0, 10))


def test_a_data_set_on_a_mount_that_is_gone_is_out_of_reach(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets.Dataset.from_dict({"n": list(range(10))}).save_to_disk(tmp_path / "saved")
    source = HfSource(str(tmp_path / "saved"), None, None)
    real = os.stat

    def stumble(path: Any, **named: Any) -> Any:
        if str(path).endswith(".arrow"):
            raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN))
        return real(path, **named)

    monkeypatch.setattr(os, "stat", stumble)
    with pytest.raises(UnreachableInputError, match="Transport endpoint is not connected"):
        list(source.cursor(["n"], 5).read(0, 10))
