"""The report: what it counts and shows, that data is never markup in it, and what it reads of a large job."""

import base64
import hashlib
import io
import json
import re
import shutil
import time
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import committed_jobs
import pyarrow as pa
import pytest
from pictures import encoded, picture
from PIL import Image

from run_batch.io.outputs.shards import ShardStore
from run_batch.jobs.job.errors import JobError
from run_batch.jobs.job.plan import Plan
from run_batch.jobs.results.shard_commits import Commit
from run_batch.jobs.watch import report as report_module
from run_batch.jobs.watch import report_input
from run_batch.jobs.watch.job_folder import JobFolder
from run_batch.jobs.watch.page import plain
from run_batch.jobs.watch.report import ReportOptions, report_job, write_report
from run_batch.jobs.watch.report_numbers import Numbers
from run_batch.jobs.watch.report_sample import sample_rows
from run_batch.jobs.watch.running_rates import running_rates
from run_batch.jobs.watch.status import read_status

HOSTILE = (
    "</script><script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "<style>*{display:none}</style>\x00\x1b[2J",
    "\u202eevil\u2066 \u200f",
    "&lt;b&gt;" + "x" * 1_000_000,
    "]]><!--",
)

PICTURES = [encoded(picture(i, (600, 400)), "PNG") for i in range(8)]


class Page(HTMLParser):
    """What a browser would find in a page: elements with their attributes, and rows with their fields."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, Any]]] = []
        self.rows: list[dict[str, str]] = []
        self.source: dict[str, str] = {}
        self.text = ""
        self._inside = self._field = ""
        self.content = path.read_text()
        self.feed(self.content)
        self.close()

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = tag
        if tag == "article":
            self.rows.append({"kinds": dict(attrs)["data-kinds"]})

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside in ("script", "style"):
            self.source[self._inside] = data
        elif self._inside == "dt":
            self._field = data
        elif self._inside == "pre" and self.rows and self._field:
            self.rows[-1][self._field] = data
            self._field = ""
        self.text += data

    def all(self, tag: str) -> list[dict[str, Any]]:
        return [attributes for found, attributes in self.tags if found == tag]


def finished(folder: Path, prompts: list[str], **tables: Any) -> Any:
    """A job of rows with images, all of them finished; rows 2 and 3 have failed."""
    columns = {
        "prompt": prompts,
        "image": [PICTURES[i % 8] for i in range(len(prompts))],
        "answer": [f"t{i}" if i else "other" for i in range(len(prompts))],
    }
    path = str(folder / "rows.parquet")
    settings = {"input": {"path": path}, "errors": {"expected_column": "answer", "max_fraction": 1.0}, **tables}
    job = committed_jobs.prepared(folder, columns, **settings)
    committed_jobs.commit(job, range(len(prompts)))
    return job


def report(job: Any, **options: Any) -> Page:
    return Page(write_report(JobFolder.at(job.store.folder), ReportOptions(**options))[0])


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


def test_nothing_of_a_row_is_markup_and_only_the_pages_own_script_may_run(tmp_path: Path) -> None:
    job = finished(
        tmp_path, [*HOSTILE, "a", "b"], input={"path": str(tmp_path / "rows.parquet"), "id_column": "prompt"}
    )
    page = report(job)
    assert {tag for tag, _ in page.tags} <= {
        *("html", "head", "meta", "title", "style", "body", "main", "header", "nav", "a", "h1", "h2", "p", "bdi"),
        *("table", "thead", "tbody", "tr", "th", "td", "pre", "svg", "polyline", "polygon", "rect", "text", "line"),
        *("div", "input", "select", "option", "article", "dl", "dt", "dd", "img", "script", "section", "span"),
        *("details", "summary", "h3"),
    }
    assert [len(page.all(tag)) for tag in ("script", "style")] == [1, 1]
    assert not any(name.startswith("on") or name == "style" for _, found in page.tags for name in found)
    links = {link["href"].removeprefix("#") for link in page.all("a")}
    assert links and links == {part["id"] for part in page.all("section")}, "links lead to sections of the page alone"
    assert all(image["src"].startswith("data:image/jpeg;base64,") for image in page.all("img"))
    policy = next(meta["content"] for meta in page.all("meta") if "http-equiv" in meta)
    assert policy.startswith("default-src 'none'; ")
    for tag in ("script", "style"):
        digest = base64.b64encode(hashlib.sha256(page.source[tag].encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert "unsafe" not in policy
    assert not re.search("[\x00\x1b\u202e\u2066\u200f]", page.content)
    assert page.rows[4]["prompt"].startswith("&lt;b&gt;xxx") and page.rows[4]["prompt"].endswith("xxx …")
    assert 3000 < len(page.rows[4]["prompt"]) < 5000
    assert page.rows[0]["prompt"] == HOSTILE[0] and page.rows[3]["prompt"] == "\\u202eevil\\u2066 \\u200f"
    assert len(page.content) < 300_000


@pytest.mark.parametrize("text", ["&" * 5000, "\x00" * 5000, "\U0001f600" * 5000, "ab&" * 10])
def test_text_is_cut_between_characters_and_says_so(text: str) -> None:
    shown = plain(text, 999)
    assert len(shown.encode()) <= 999 + len(" …".encode())
    assert shown.endswith(" …") == (len(text) > 999)
    assert re.fullmatch(r"(ab|&amp;|\\x00|\U0001f600)*( …)?", shown)


@pytest.mark.parametrize("rows", [200, 1000])
def test_a_page_with_as_much_of_each_row_as_can_be_stays_below_8_mb(
    tmp_path: Path, monkeypatch: Any, rows: int
) -> None:
    monkeypatch.setattr(report_input, "thumbnail", lambda encoded, max_bytes: b"x" * max_bytes)
    columns = {
        "prompt": ['"&<' * 5000] * rows,
        "image": [[b"x"] * 5] * rows,
        "id": [f"{i:06}&" + '"' * 3000 for i in range(rows)],
    }
    path = str(tmp_path / "rows.parquet")
    job = committed_jobs.prepared(
        tmp_path, columns, input={"path": path, "id_column": "id"}, output={"rows_per_shard": 500}
    )
    committed_jobs.commit(job, range(rows))
    page = write_report(JobFolder.of(job.config), ReportOptions(rows=rows))[0]
    assert 5_000_000 < page.stat().st_size < 8_000_000
    assert page.read_text().count("<article") == rows and "1 more images" in page.read_text()


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


class CountedStore(ShardStore):
    """A store of which shards are made up, and reads counted."""

    reads = 0

    def schema(self, index: int) -> pa.Schema:
        return pa.schema([("row_id", pa.string())])

    def batches(self, index: int, columns: Any = None, batch_rows: int = 1024) -> Any:
        self.reads += 1
        rows = {"row_id": [f"r{index}"] * 10, "text": ["t"] * 10, "finish_reason": ["stop"] * 10}
        numbers = {"prompt_tokens": [1] * 10, "generated_tokens": list(range(10))}
        table = pa.table({**rows, **numbers, "error": pa.array([None] * 9 + ["bad: x"])})
        return iter(table.select([name for name in table.column_names if name in columns]).to_batches())


@pytest.mark.parametrize("shards", [100, 100_000])
def test_what_is_read_does_not_grow_with_the_shards(tmp_path: Path, shards: int) -> None:
    store = CountedStore(tmp_path)
    commits = {shard: Commit(shard, 0, 10, 10, 45, {"bad": 1}) for shard in range(shards)}
    sample = sample_rows(store, Plan(shards * 10, 10), commits, 200, 0, Numbers(slowest=[(1.5, 999)]))
    assert store.reads <= 2 * 24 + 1 and sample.shards == 20
    (slowest,) = [row for row in sample.rows if "slowest" in row.kinds]
    assert (slowest.row, slowest.seconds) == (999, 1.5)
    assert sum("failed" in row.kinds for row in sample.rows) >= 16


def write_metrics(folder: Path, lines: list[tuple[float, float, int]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    texts = [json.dumps({"time": t, "seconds": s, "rows_finished": n, "more": 1}) for t, s, n in lines]
    (folder / "metrics.jsonl").write_text("\n".join(["", "{torn", *texts, '{"time": 1']))


def test_a_constant_rate_is_shown_as_constant(tmp_path: Path) -> None:
    lines, now = [], 1000.37
    for seconds in [1.3, 1.3, 1.3, 0.7] * 30:
        now += seconds
        lines.append((now, seconds, round(100 * seconds)))
    write_metrics(tmp_path, lines)
    found = running_rates(tmp_path)
    assert found.rates == pytest.approx([100.0] * len(found.rates)) and len(found.rates) > 100 and not found.gaps


def test_time_between_runs_is_left_out_and_marked_and_processes_add_up(tmp_path: Path) -> None:
    def run(start: float, seconds: int) -> list[tuple[float, float, int]]:
        return [(start + i + 1, 1.0, 100) for i in range(seconds)]

    write_metrics(tmp_path / "shares" / "0-of-2", [*run(5000, 50), *run(9000, 50)])
    write_metrics(tmp_path / "shares" / "1-of-2", [*run(5000, 50), *run(9000, 50)])
    found = running_rates(tmp_path)
    assert found.seconds == 100 and found.rates == pytest.approx([200.0] * 100)
    assert found.gaps == [(50.0, 3950.0)]


def test_metrics_without_a_line_show_nothing(tmp_path: Path) -> None:
    write_metrics(tmp_path, [(float("nan"), 1.0, 1), (1.0, 0.0, 1), (1.0, 1e300, 1)])
    assert running_rates(tmp_path).rates == ()
