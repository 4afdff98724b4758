"""The report: what it counts and shows."""

import base64
import io
import re
import shutil
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import committed_jobs
import pytest
from pictures import encoded, picture
from PIL import Image
from report_pages import PICTURES, Page, finished, report

from run_batch.jobs.job.errors import JobError
from run_batch.jobs.watch import report as report_module
from run_batch.jobs.watch.job_folder import JobFolder
from run_batch.jobs.watch.report import ReportOptions, report_job, write_report
from run_batch.jobs.watch.status import read_status


def test_rows_are_shown_with_prompt_image_answer_and_what_was_expected(tmp_path: Path) -> None:
    page = report(finished(tmp_path, list("abcdefgh")))
    assert len(page.rows) == 8
    first, _, failed, *_ = page.rows
    assert (first["id"], first["prompt"], first["answer"], first["expected"]) == ("rows.parquet:0", "a", "t0", "other")
    assert (first["finish reason"], first["tokens"]) == ("stop", "3 in the prompt, 1 generated")
    assert "mismatching" in first["kinds"].split()
    assert failed["error"] == "bad: why" and "failed" in failed["kinds"].split() and "answer" not in failed
    assert len(page.all("img")) == 8
    for image in page.all("img"):
        jpeg = base64.b64decode(image["src"].removeprefix("data:image/jpeg;base64,"))
        assert len(jpeg) <= 10_000 and max(Image.open(io.BytesIO(jpeg)).size) == 256
    assert "600 x 4008" in page.text, "eight images of that size"


def test_carried_columns_of_small_cells_are_shown_by_their_names(tmp_path: Path) -> None:
    rows = {
        "prompt": list("abcd"),
        "image": PICTURES[:4],
        "score": [0.5, None, 1.5, 2.5],
        "<b>": ["<i>", "x" * 9000, None, "y"],
        "tags": [["t"]] * 4,
    }
    path = str(tmp_path / "rows.parquet")
    output = {"columns": {"*": "*", "score": "points"}}
    job = committed_jobs.prepared(tmp_path, rows, input={"path": path}, output=output)
    committed_jobs.commit(job, range(4))
    page = report(job)
    assert [row.get("column points") for row in page.rows] == ["0.5", None, "1.5", "2.5"]
    assert [row.get("column <b>", "")[:3] for row in page.rows] == ["<i>", "xxx", "", "y"]
    assert not {"column image", "column tags", "column text"} & set().union(*page.rows)
    assert len(page.content) < 200_000


def test_a_complete_job_with_failed_rows_stands_out(tmp_path: Path) -> None:
    job = finished(tmp_path, list("abcd"))
    assert "2 rows failed" not in report(job).text, "it is not complete yet"
    job.store.mark_success()
    content = report(job).content
    assert re.search(r">complete</pre><p class=\"bad\"><bdi>but 2 rows failed<", content)
    assert re.search(r">2</pre><p class=\"bad\"><bdi>50\.00% of those done<", content)


def test_counts_are_those_of_status(tmp_path: Path) -> None:
    job = finished(tmp_path, list("abcdefgh"))
    status, page = read_status(job.config), report(job)
    assert (status.done, status.failed) == (8, 2)
    for found in (
        r"done8100\.00% of 8; 0 left",
        r"failed225\.00% of those done",
        r"as expected83\.33%5 of 6 rows that expect a text and did not fail",
        "bad2rows.parquet:2why",
        r"stop675\.00%",
        r"done8failed2 \(25\.00%",
    ):
        assert re.search(found, page.text.replace("\n", "")), found


def test_a_watched_report_is_written_again_until_the_job_is_complete(tmp_path: Path, monkeypatch: Any) -> None:
    path = str(tmp_path / "rows.parquet")
    job = committed_jobs.prepared(tmp_path, {"prompt": list("abcd")}, input={"path": path, "image_column": ""})
    committed_jobs.commit(job, range(2))
    pages = []

    def complete(seconds: float) -> None:
        pages.append((job.store.run_folder / "report.html").read_text())
        committed_jobs.commit(job, range(2, 4))
        job.store.mark_success()

    monkeypatch.setattr(report_module, "time", SimpleNamespace(sleep=complete, strftime=time.strftime, time=time.time))
    said = io.StringIO()
    assert report_job(JobFolder.at(job.store.folder), ReportOptions(), True, said) == 0
    pages.append((job.store.run_folder / "report.html").read_text())
    assert [page.count("<article") for page in pages] == [2, 4]
    assert said.getvalue() == f"{job.store.run_folder / 'report.html'}\n"


def test_a_process_that_runs_is_told_as_running_and_one_that_was_killed_is_not(tmp_path: Path) -> None:
    path = str(tmp_path / "rows.parquet")
    job = committed_jobs.prepared(tmp_path, {"prompt": list("abcd")}, input={"path": path, "image_column": ""})
    committed_jobs.commit(job, range(0))  # it records the job
    seen = []
    committed_jobs.commit(job, range(2), lambda: seen.append(report(job).text))
    assert seen[0].count("still running") == 1 and "killed" not in seen[0]
    after = report(job).text
    assert "still running" not in after and "0: done" in after


def test_the_same_seed_chooses_the_same_rows(tmp_path: Path) -> None:
    job = finished(tmp_path, [f"p{i}" for i in range(40)], output={"rows_per_shard": 10})
    chosen = [[row["id"] for row in report(job, rows=8, seed=seed).rows] for seed in (1, 1, 2)]
    assert chosen[0] == chosen[1] != chosen[2] and len(chosen[0]) == 8


def test_a_report_says_that_the_input_is_gone_or_has_changed_and_shows_the_results(tmp_path: Path) -> None:
    job = finished(tmp_path, list("abcdefgh"))
    rows = tmp_path / "rows.parquet"
    kept = tmp_path / "kept"
    shutil.move(rows, kept)
    gone = report(job)
    assert "the input is not shown" in gone.text and len(gone.rows) == 8 and gone.rows[0]["answer"] == "t0"
    assert not gone.all("img")
    (tmp_path / "other").mkdir()
    finished(tmp_path / "other", list("stuvwxyz"))
    shutil.copy(tmp_path / "other" / "rows.parquet", rows)
    changed = report(job)
    assert "the input of 8 rows is not shown" in changed.text and "has changed" in changed.text
    assert not any("prompt" in row for row in changed.rows)


def test_a_row_of_the_input_with_another_id_is_not_shown_as_that_of_a_result(tmp_path: Path) -> None:
    job = finished(tmp_path, list("abcd"))
    table = job.config.input.model_copy(update={"id_column": "answer"})
    other = JobFolder(job.store, job.config.model_copy(update={"input": table}))
    page = Page(write_report(other)[0])
    assert [row["images"] for row in page.rows] == ["the input has another row here now"] * 4
    assert not page.all("img") and not any("prompt" in row for row in page.rows)


def test_an_image_that_cannot_be_decoded_and_one_behind_a_url_are_named(tmp_path: Path) -> None:
    images = [b"no image", None, encoded(picture(1, (20, 20)), "PNG"), b""]
    rows = {"prompt": list("abcd"), "image": [{"bytes": image, "path": None} for image in images]}
    rows["image"][1] = {"bytes": None, "path": "http://example.org/x.png"}
    path = str(tmp_path / "rows.parquet")
    job = committed_jobs.prepared(tmp_path, rows, input={"path": path, "allowed_hosts": ["example.org"]})
    committed_jobs.commit(job, range(4))
    page = report(job)
    assert "image_decode: not an image" in page.rows[0]["images"]
    assert page.rows[1]["images"] == "an image behind a URL is not fetched"
    assert len(page.all("img")) == 1 and "image_empty" in page.rows[3]["images"]


def test_an_image_that_a_row_misses_is_named_by_its_place(tmp_path: Path) -> None:
    (tmp_path / "there.png").write_bytes(PICTURES[0])
    rows = {"prompt": ["a"], "image": [["none.png", "there.png"]]}
    job = committed_jobs.prepared(tmp_path, rows, input={"path": str(tmp_path / "rows.parquet")})
    committed_jobs.commit(job, range(1))
    page = report(job)
    assert "image 1 of 2: image_not_found" in page.rows[0]["images"]
    assert [image["alt"] for image in page.all("img")] == ["image 2"]


@pytest.mark.parametrize(
    ("name", "said"), [("none/page.html", "no folder"), ("test", "is a folder"), ("rows.parquet", "is no report")]
)
def test_a_report_is_written_over_a_report_alone(tmp_path: Path, name: str, said: str) -> None:
    job = finished(tmp_path, list("abcd"))
    before = (tmp_path / "rows.parquet").read_bytes()
    with pytest.raises(JobError, match=said):
        report(job, output=tmp_path / name)
    assert (tmp_path / "rows.parquet").read_bytes() == before
    for _ in range(2):
        assert len(report(job, output=tmp_path / "page.html").rows) == 4
