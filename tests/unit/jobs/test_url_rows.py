"""Rows with image URLs, mapped as job.toml's allowed hosts permit, and with images in the text itself."""

import errno
import os
import socket
from base64 import b64encode
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from bad_rows import BadRow, columns, of_bytes
from pictures import encoded, picture
from servers import file_server

import jobs
from run_batch.io import transient
from run_batch.io.inputs.source import RowBatch
from run_batch.jobs.job.config import load_config
from run_batch.jobs.job.rows import MappedRow, RowFailure
from run_batch.jobs.mapping.row_mapper import RowMapper
from run_batch.model.declaration import JobFault
from run_batch.model.plugin import announce_plugins, register

PICTURE = encoded(picture(5))


def map_rows(folder: Path, rows: list[BadRow], **keys: Any) -> list[MappedRow | RowFailure]:
    announce_plugins([], folder)
    register()
    path = jobs.write_job(folder, None, input={"id_column": None, "sampling_column": "own", **keys})
    records = columns(rows).to_batches()[0]
    mapper = RowMapper(load_config(path), records.schema, folder)
    return list(mapper.map(RowBatch(0, records, [f"rows:{i}" for i in range(len(rows))])))


def content_hash(row: MappedRow | RowFailure) -> str:
    assert isinstance(row, MappedRow), row
    (found,) = row.engine_input["mm_hashes"]["image"]
    return str(found)


def test_an_image_by_url_is_the_image_and_a_row_whose_url_fails_fails_alone(tmp_path: Path) -> None:
    with file_server(PICTURE, "s3cret") as port:
        host = f"127.0.0.1:{port}"
        by_url = [{"bytes": None, "path": f"http://{host}/a.png?key={key}"} for key in ("s3cret", "wr0ng")]
        rows = [BadRow((), of_bytes(PICTURE)), *(BadRow((), [item]) for item in by_url)]
        allowed = map_rows(tmp_path / "a", rows, allowed_hosts=[host], allow_private_hosts=True)
        private = map_rows(tmp_path / "b", rows, allowed_hosts=[host])
        unlisted = map_rows(tmp_path / "c", rows, allow_private_hosts=True)
    assert content_hash(allowed[1]) == content_hash(allowed[0])
    assert isinstance(allowed[2], RowFailure)
    assert allowed[2].error == "url_failed: http://127.0.0.1/a.png: HTTP status 403"
    for refused in (*private[1:], *unlisted[1:]):
        assert isinstance(refused, RowFailure) and refused.error.startswith("url_not_allowed: ")
    assert "private or reserved" in private[1].error and "input.allowed_hosts" in unlisted[1].error  # type: ignore[union-attr]


def test_a_look_up_without_open_files_left_is_no_rows_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    with pytest.raises(JobFault, match="Too many open files"):
        map_rows(
            tmp_path, [BadRow((), [{"bytes": None, "path": "http://images.test/a.png"}])], allowed_hosts=["images.test"]
        )


def test_a_file_of_the_media_root_that_is_stale_for_a_moment_is_read_and_else_may_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.png").write_bytes(PICTURE)
    stale, real = [OSError(errno.ESTALE, os.strerror(errno.ESTALE))] * 2, os.open

    def stumble(path: Any, *arguments: Any, **named: Any) -> int:
        if path == "a.png" and stale:
            raise stale.pop()
        return real(path, *arguments, **named)

    monkeypatch.setattr(transient, "STORAGE_PAUSES", (0.001, 0.001))
    monkeypatch.setattr(os, "open", stumble)
    rows = [BadRow((), [{"bytes": None, "path": "a.png"}])]
    assert isinstance(map_rows(tmp_path, rows)[0], MappedRow)
    stale += [OSError(errno.ESTALE, os.strerror(errno.ESTALE))] * 9
    with pytest.raises(JobFault, match="Stale file handle") as caught:
        map_rows(tmp_path, rows)
    assert transient.may_pass(caught.value)


def test_an_image_in_the_text_itself_is_the_image_and_needs_no_host_or_folder(tmp_path: Path) -> None:
    announce_plugins([], tmp_path)
    register()
    text = b64encode(PICTURE).decode()
    cells = ["data:image/png;base64," + text, text, "data:image/png;base64,?", "a.png"]
    records = pa.record_batch({"uid": list("abcd"), "image": cells, "prompt": ["is it even?"] * 4})
    mapper = RowMapper(load_config(jobs.write_job(tmp_path, None)), records.schema, None)
    data_url, base64, *bad = mapper.map(RowBatch(0, records))
    by_bytes = records.set_column(1, "image", pa.array([PICTURE] * 4))
    (expected, *_) = RowMapper(load_config(tmp_path / "job.toml"), by_bytes.schema, None).map(RowBatch(0, by_bytes))
    assert content_hash(data_url) == content_hash(base64) == content_hash(expected)
    assert [row.kind for row in bad if isinstance(row, RowFailure)] == ["image_decode", "path_not_allowed"]
