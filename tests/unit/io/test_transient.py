"""Which failures may pass, and what is tried again."""

import errno
import http.client
import os
import ssl
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import requests
import urllib3
from huggingface_hub.errors import OfflineModeIsEnabled

from run_batch.io import transient
from run_batch.io.files import list_names, read_file, replace_file
from run_batch.io.transient import may_pass, passing_cause, refusal, retry


def of_os(number: int) -> OSError:
    return OSError(number, os.strerror(number))


def of_library(module: str, *names: str, **attributes: Any) -> Exception:
    """An exception of a library that need not be installed; its class comes first, then those that it derives from."""
    kind: type[Exception] = Exception
    for name in reversed(names):
        kind = type(name, (kind,), {"__module__": module})
    error = kind("what it says")
    for attribute, value in attributes.items():
        setattr(error, attribute, value)
    return error


def response_error(status: int) -> aiohttp.ClientResponseError:
    return aiohttp.ClientResponseError(None, (), status=status)  # type: ignore[arg-type]


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


PASSING = [
    *map(of_os, (errno.ESTALE, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETUNREACH)),
    *map(of_os, (errno.ENOTCONN, errno.EREMOTEIO, errno.ENOLINK, errno.ESHUTDOWN, errno.EAGAIN, errno.EBUSY)),
    *(ConnectionResetError(), BrokenPipeError(), TimeoutError(), TimeoutError("timed out")),
    *(aiohttp.ClientPayloadError("cut off"), aiohttp.ServerDisconnectedError(), response_error(503)),
    *(requests.ConnectionError(), requests.ReadTimeout(), http.client.IncompleteRead(b"")),
    urllib3.exceptions.ProtocolError("Connection aborted."),
    of_library("botocore.exceptions", "EndpointConnectionError", "ConnectionError"),
    of_library("botocore.exceptions", "ClientError", response={"ResponseMetadata": {"HTTPStatusCode": 503}}),
    of_library("gcsfs.retry", "HttpError", code=429),
    of_library("azure.core.exceptions", "HttpResponseError", status_code=500),
    # fsspec's http says so where a server cannot be asked for a file.
    caused(FileNotFoundError("http://host/rows.parquet"), response_error(503)),
    caused(caused(ValueError(), RuntimeError()), of_os(errno.ESTALE)),
]  # fmt: skip

LASTING = [
    *map(of_os, (errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.ENOENT, errno.EMFILE)),
    *(ValueError("x"), OSError("no number"), response_error(403), response_error(404), response_error(501)),
    ssl.SSLCertVerificationError("self-signed certificate"),
    OfflineModeIsEnabled("HF_HUB_OFFLINE"),
    caused(FileNotFoundError("http://host/rows.parquet"), response_error(404)),
    of_library("botocore.exceptions", "ClientError", response={"ResponseMetadata": {"HTTPStatusCode": 404}}),
    of_library("mine", "ClientPayloadError"),
]


@pytest.mark.parametrize("error", PASSING, ids=repr)
def test_what_may_pass_is_tried_again_until_it_works(error: Exception) -> None:
    failures = [error, error]
    assert may_pass(error)
    assert retry(lambda: (failures and raise_one(failures)) or "done") == "done"


@pytest.mark.parametrize("error", LASTING, ids=repr)
def test_what_stays_is_not_tried_again(error: Exception) -> None:
    failures = [error, error]
    assert not may_pass(error)
    with pytest.raises(type(error)):
        retry(lambda: failures and raise_one(failures))
    assert len(failures) == 1


def raise_one(errors: list[Exception]) -> None:
    raise errors.pop()


def test_what_lasts_is_raised_after_the_last_try(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transient, "STORAGE_PAUSES", (0.001, 0.001))
    failures: list[Exception] = [of_os(errno.ESTALE) for _ in range(10)]
    with pytest.raises(OSError, match="Stale file handle"):
        retry(lambda: raise_one(failures))
    assert len(failures) == 7


def test_the_failure_behind_another_one_is_found() -> None:
    behind = response_error(503)
    assert passing_cause(caused(FileNotFoundError("x"), behind)) is behind
    refused = response_error(403)
    assert refusal(caused(FileNotFoundError("x"), refused)) is refused
    assert refusal(of_os(errno.EACCES)) is not None and refusal(response_error(404)) is None


def stumbling(call: Any) -> Any:
    """A function that fails twice before it works."""
    failing: list[Exception] = [of_os(errno.ESTALE), of_os(errno.ETIMEDOUT)]
    return lambda *arguments: raise_one(failing) if failing else call(*arguments)


def test_small_files_and_listings_survive_a_moment_of_failures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "file"
    for call in ("replace", "scandir"):
        monkeypatch.setattr(os, call, stumbling(getattr(os, call)))
    replace_file(file, b"content")
    assert read_file(file) == b"content" and list_names(tmp_path) == ["file"]
    with pytest.raises(FileNotFoundError):
        list_names(tmp_path / "missing")
