"""Storage and servers that stumble: what may pass is tried again, and ends a run with exit code 74 if it lasts."""

import errno
import io
import os
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from disks import Failing
from servers import Answer, Handler, Server, body, reset, status
from stand_ins import Setting, Speed
from standing import StandingJob, make_job, wait_for_rows

ROWS = 400
FAST = Speed(step_seconds=0.002)
TEXTS = [f"text of prompt {i}" for i in range(ROWS)]


class FileServer(Server):
    """Serves one file, in parts too; from request `first` on, `times` requests get the answer `fault`."""

    def __init__(self, content: bytes) -> None:
        super().__init__({"/rows.parquet": self._answer})
        self.RequestHandlerClass = type("WithHead", (Handler,), {"do_HEAD": Handler.do_GET})
        self.content = content
        self.fault: Answer | None = None
        self.first, self.times = 0, 0

    def _answer(self, request: Any) -> None:
        if self.fault is not None and self.first <= len(self.asked) < self.first + self.times:
            if request.command == "GET":  # HEAD gets no answer, which says nothing of the size either
                self.fault(request)
            return
        part = request.headers["Range"]
        first, last = (part or f"bytes=0-{len(self.content) - 1}").partition("=")[2].split("-")
        content = self.content[int(first) : int(last) + 1]
        request.send_response(206 if part else 200)
        request.send_header("Accept-Ranges", "bytes")
        request.send_header("Content-Length", str(len(content)))
        request.send_header("Content-Range", f"bytes {first}-{last}/{len(self.content)}")
        request.end_headers()
        request.wfile.write(content if request.command == "GET" else b"")


@pytest.fixture
def server() -> Iterator[FileServer]:
    file = io.BytesIO()
    # Larger than what fsspec reads ahead, so that rows are asked for while the job runs.
    table = pa.table({
        "uid": [f"u{i:06d}" for i in range(ROWS)],
        "prompt": [f"prompt {i}" for i in range(ROWS)],
        "ballast": [(i * 7919 % 251).to_bytes(1, "big") * 100_000 for i in range(ROWS)],
    })  # fmt: skip
    pq.write_table(table, file, row_group_size=50, compression="none", use_dictionary=False)
    with FileServer(file.getvalue()) as started:
        threading.Thread(target=started.serve_forever, args=(0.01,), daemon=True).start()
        yield started
        started.shutdown()


@pytest.fixture
def remote_job(server: FileServer, tmp_path: Path) -> StandingJob:
    url = f"http://127.0.0.1:{server.server_address[1]}/rows.parquet?key=s3cret"
    job = make_job(
        tmp_path,
        ["unused"],
        FAST,
        input={"path": url, "image_column": ""},
        output={"rows_per_shard": 50},
    )
    return replace(job, setting=Setting(rows_ahead=16))


@pytest.fixture
def job(tmp_path: Path) -> StandingJob:
    prompts = [f"prompt {i}" for i in range(ROWS)]
    return make_job(tmp_path, prompts, FAST, output={"rows_per_shard": 20})


def stumbles(job: StandingJob, *words: str) -> str:
    """Run a job that ends with exit code 74, in one sentence that has these words."""
    code, said = job.run()
    assert code == 74 and "Traceback" not in said and "this is a bug" not in said, said
    for word in (*words, "may pass", "run the same command again"):
        assert word in said
    assert "damaged" not in said and "s3cret" not in said
    return said


def finishes(job: StandingJob) -> None:
    code, said = job.run()
    assert code == 0, said
    assert job.table()["text"].to_pylist() == TEXTS and job.is_complete()


FAULTS = {
    "reset": reset(b"PAR1", 1000),
    "cut off": body(b"PAR1", 1000),
    "no answer": lambda request: None,
    "busy": status(503),
}


LONG = [pytest.param(fault, marks=pytest.mark.long) for fault in ("cut off", "no answer")]


@pytest.mark.parametrize("fault", ["reset", "busy", *LONG])
def test_an_input_whose_connection_breaks_off_is_read_on(
    remote_job: StandingJob, server: FileServer, fault: str
) -> None:
    server.fault, server.first, server.times = FAULTS[fault], 12, 2
    finishes(remote_job)
    assert len(server.asked) > 14, "the fault never came"
    assert sorted(remote_job.generated()) == list(range(ROWS)), "rows were generated twice"


def test_an_input_whose_server_stays_away_ends_the_run_and_the_same_command_goes_on(
    remote_job: StandingJob, server: FileServer
) -> None:
    server.fault, server.first, server.times = status(503), 1, 1 << 30
    stumbles(remote_job, "rows.parquet", "cannot be read now")
    assert not remote_job.generated()
    server.fault, remote_job.speed = None, Speed(step_seconds=0.03)
    process = remote_job.start()
    wait_for_rows(remote_job, 20)
    server.fault = status(503)
    process.join(30)
    assert process.exitcode == 74 and "503" in remote_job.said(), remote_job.said()
    assert 20 <= len(remote_job.generated()) < ROWS
    server.fault, remote_job.speed = None, FAST
    finishes(remote_job)
    assert len(remote_job.generated()) <= ROWS + 16, "rows that were finished were generated again"


def test_an_input_that_may_not_be_read_is_no_stumbling(remote_job: StandingJob, server: FileServer) -> None:
    server.fault, server.first, server.times = status(403), 1, 1 << 30
    code, said = remote_job.run()
    assert code == 2 and "403" in said and "s3cret" not in said and "Traceback" not in said, said
    assert len(server.asked) < 10, "it was asked for again and again"


@pytest.mark.parametrize("call", ["scandir", "replace", "stat"])
def test_storage_that_stumbles_for_a_moment_is_asked_again(job: StandingJob, call: str) -> None:
    job.setting = Setting(failing=Failing(call, errno.ESTALE, first=3, times=2))
    finishes(job)


@pytest.mark.parametrize(
    ("call", "number"),
    [
        ("scandir", errno.ESTALE),
        ("replace", errno.ETIMEDOUT),
        ("open", errno.EHOSTDOWN),
        ("stat", errno.ENOTCONN),
        ("mkdir", errno.EREMOTEIO),
    ],
)
def test_storage_that_stays_away_ends_the_run_and_the_same_command_goes_on(
    job: StandingJob, call: str, number: int
) -> None:
    job.setting = Setting(failing=Failing(call, number, first=3))
    stumbles(job, "out", os.strerror(number))
    job.setting = Setting()
    finishes(job)


@pytest.mark.parametrize("number", [errno.EIO, errno.EACCES])
def test_storage_that_needs_somebody_to_mend_it_is_no_stumbling(job: StandingJob, number: int) -> None:
    job.setting = Setting(failing=Failing("replace", number, first=3))
    code, said = job.run()
    assert code == 1 and "may pass" not in said and "Traceback" not in said, said
