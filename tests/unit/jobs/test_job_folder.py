"""Status and report of a results folder that is named by itself, and how status is watched."""

import io
import os
import pty
import shutil
import termios
from pathlib import Path
from typing import Any

import committed_jobs
import pytest

from run_batch.jobs.job.errors import JobError
from run_batch.jobs.watch.job_folder import JobFolder
from run_batch.jobs.watch.report import ReportOptions, write_report
from run_batch.jobs.watch.status import JobStatus, folder_status, read_status
from run_batch.jobs.watch.watching import Display, watch_job


@pytest.fixture
def job(tmp_path: Path) -> Any:
    return committed_jobs.prepared(tmp_path, {"prompt": list("abcdef")})


def test_a_folder_tells_of_its_job_without_job_toml_while_it_runs_and_where_it_was_copied_to(
    job: Any, tmp_path: Path
) -> None:
    seen: list[JobStatus] = []
    committed_jobs.commit(job, range(4), lambda: seen.append(folder_status(JobFolder.at(job.store.folder))))
    assert seen[0].rows == 6
    copy = tmp_path / "elsewhere" / "copy"
    shutil.copytree(job.store.folder, copy)
    found = folder_status(JobFolder.at(copy))
    assert found == folder_status(JobFolder.at(job.store.folder)) == read_status(job.config)
    assert (found.rows, found.done, found.failed, found.left) == (6, 4, 2, 2)
    page = tmp_path / "page.html"
    assert write_report(JobFolder.at(copy), ReportOptions(page))[0] == page
    assert "stopped" in page.read_text() and not (copy / ".run_batch" / "report.html").exists()


def test_a_folder_records_the_job_toml_of_its_last_run_without_secrets(tmp_path: Path) -> None:
    hosts = {"path": str(tmp_path / "rows.parquet"), "image_column": "", "allowed_hosts": ["example.org"]}
    job = committed_jobs.prepared(
        tmp_path, {"prompt": ["a"]}, input=hosts, slurm={"comment": "hf_abcdefghijklmnopqrstu"}
    )
    committed_jobs.commit(job, range(1))
    recorded = JobFolder.at(job.store.folder).config
    assert recorded is not None
    assert recorded.input == job.config.input and recorded.output_folder == job.config.output_folder
    assert recorded.output.model_fields_set == job.config.output.model_fields_set
    assert "hf_abcdef" not in (job.store.run_folder / "config.json").read_text()
    (job.store.run_folder / "config.json").write_text("{}")
    assert JobFolder.at(job.store.folder).config is None
    assert folder_status(JobFolder.at(job.store.folder)).done == 1


@pytest.mark.parametrize(("name", "said"), [("none", "no such folder"), ("empty", "no job"), ("file", "is a file")])
def test_what_is_no_results_folder_is_refused(tmp_path: Path, name: str, said: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(JobError, match=said):
        JobFolder.at(tmp_path / name)


def test_a_status_takes_the_place_of_the_one_before_on_a_terminal_and_follows_it_elsewhere() -> None:
    texts = io.StringIO()
    elsewhere = Display(texts)
    for text in ("one\ntwo", "three"):
        elsewhere.show(text)
    assert texts.getvalue() == "one\ntwo\nthree\n"
    ours, theirs = pty.openpty()
    with open(theirs, "w") as terminal:
        display = Display(terminal)
        for text in ("one\n" + "x" * 100, "two"):
            display.show(text)
        # Two lines of text take three on a terminal of 80 columns, which one of no known size is taken for.
        shown = b""
        while not shown.endswith(b"two\r\n"):
            shown += os.read(ours, 1000)
        assert shown.endswith(b"\x1b[3F\x1b[Jtwo\r\n")
    os.close(ours)


def test_a_status_that_is_taller_than_the_terminal_is_cut() -> None:
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (6, 60))
    with open(theirs, "w") as terminal:
        display = Display(terminal)
        for _ in range(2):
            display.show("\n".join(f"line {number}" for number in range(9)))
        shown = b""
        while shown.count(b"more lines\r\n") < 2:
            shown += os.read(ours, 1000)
    once = "".join(f"line {number}\r\n" for number in range(4)).encode() + "… 5 more lines\r\n".encode()
    assert shown == once + b"\x1b[5F\x1b[J" + once
    os.close(ours)


def test_watching_ends_with_the_job() -> None:
    states = iter(["not started", "loading", "running", "complete"])
    assert watch_job(lambda: JobStatus(next(states)), seconds=0).state == "complete"
