"""The page of the report: data is never markup in it, and it stays small whatever the rows hold."""

import base64
import hashlib
import re
from pathlib import Path
from typing import Any

import committed_jobs
import pytest
from report_pages import finished, report

from run_batch.jobs.watch import report_input
from run_batch.jobs.watch.job_folder import JobFolder
from run_batch.jobs.watch.page import plain
from run_batch.jobs.watch.report import ReportOptions, write_report

HOSTILE = (
    "</script><script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "<style>*{display:none}</style>\x00\x1b[2J",
    "\u202eevil\u2066 \u200f",
    "&lt;b&gt;" + "x" * 1_000_000,
    "]]><!--",
)


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
