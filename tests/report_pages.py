"""Pages of `run-batch report` for the tests: of a finished job, and as a browser would read them."""

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import committed_jobs
from pictures import encoded, picture

from run_batch.jobs.watch.job_folder import JobFolder
from run_batch.jobs.watch.report import ReportOptions, write_report

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


def cells_of(html: str) -> list[str]:
    """The texts of the cells of tables, in their order."""
    return [re.sub("<[^>]*>", "", cell) for cell in re.findall(r"<td[^>]*>(.*?)</td>", html)]
