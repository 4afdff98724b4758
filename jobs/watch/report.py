"""`run-batch report`: one self-contained HTML file about a job.

It is made from the output folder alone, while the job runs or later. Everything that comes from rows is escaped; the
page has no scripts and loads nothing.
"""

import json
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from run_batch.io.files import replace_file
from run_batch.io.outputs.shards import ShardError, ShardStore
from run_batch.jobs.job.errors import JobError, run_failed, storage_failed
from run_batch.jobs.job.recorded_job import read_recorded_job
from run_batch.jobs.job.shares import files_of_shares
from run_batch.jobs.results.shard_commits import Commit, errors_by_kind, read_commits
from run_batch.jobs.watch.job_folder import JobFolder
from run_batch.jobs.watch.metrics import METRICS_FILE
from run_batch.jobs.watch.status import JobStatus, folder_status

REPORT_FILE = "report.html"
_ROWS_SHOWN = 20
_FAILURES_SHOWN = 5
_TEXT_CHARACTERS = 2000
_CHART = (720, 160)
# Points of the chart at most: each stands for several seconds of a longer run.
_POINTS = 180

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
h1 { font-size: 1.4rem } h2 { font-size: 1.1rem; margin-top: 2rem }
table { border-collapse: collapse; width: 100% } td, th { text-align: left; vertical-align: top; padding: .3rem .6rem;
border-bottom: 1px solid #ddd } th { font-weight: 600 } td.number { text-align: right }
pre { white-space: pre-wrap; overflow-wrap: anywhere; margin: 0; font: 13px/1.4 ui-monospace, monospace }
svg { width: 100%; background: #f7f7f7 }
"""


def write_report(folder: JobFolder, output: Path | None = None) -> Path:
    """Write the page, and return its path.

    Args:
        output: the file; `.run_batch/report.html` without it.

    Raises:
        JobError: the job has not been started.
        RunError: the results folder cannot be read, or the file not be written.
    """
    status, store = folder_status(folder), folder.store
    if status.state == "not started":
        raise JobError(f"{store.folder}: the job has not been started; there is nothing to report")
    file = output or store.run_folder / REPORT_FILE
    try:
        page = make_report(store, status).encode()
    except (ShardError, OSError) as error:
        raise run_failed(f"the job in {store.folder} cannot be looked at: {error}", error) from error
    try:
        replace_file(file, page)
    except OSError as error:
        hint = "" if output else "; name another file by --output"
        raise storage_failed(f"{file} cannot be written{hint}", error) from error
    return file


def make_report(store: ShardStore, status: JobStatus) -> str:
    """The HTML of the page.

    Raises:
        ShardError, OSError: the output folder cannot be read.
    """
    job = read_recorded_job(store)
    settings = {**job.named, **job.identity} if job is not None else {}
    commits = read_commits(store, job.plan, store.committed()) if job is not None else {}
    title = f"run-batch: {store.folder.name}"
    parts = [
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{escape(title)}</title><style>{_STYLE}</style>",
        f"<h1>{escape(title)}</h1><p>{escape(time.strftime('%Y-%m-%d %H:%M:%S %Z'))}</p>",
        _section("Rows", _table(_counts(status, list(commits.values())))),
        _section("Rows per second", _chart(_rates(store))),
        _section("Errors", _errors(store, list(commits.values()))),
        _section("First rows", _first_rows(store)),
        _section("Job", _table([(name, _shown(value)) for name, value in settings.items() if value is not None])),
    ]
    return "\n".join(part for part in parts if part) + "\n"


def _counts(status: JobStatus, commits: Sequence[Commit]) -> list[tuple[str, str]]:
    generated = sum(commit.generated_tokens for commit in commits)
    rows = sum(commit.rows - commit.failed for commit in commits)
    found = [
        ("state", status.state),
        ("rows", f"{status.rows:,}"),
        ("done", f"{status.done:,}"),
        ("failed", f"{status.failed:,} ({status.failed / max(status.done, 1):.2%} of those done)"),
        *_accuracy(commits),
        ("shards committed", f"{status.shards_done:,} of {status.shards:,}"),
        ("prompt tokens", f"{sum(commit.prompt_tokens for commit in commits):,}"),
        ("generated tokens", f"{generated:,} ({generated / max(rows, 1):.1f} a row)"),
    ]
    return found + [(f"share {share.share}", share.as_text().partition(": ")[2]) for share in status.shares]


def _accuracy(commits: Sequence[Commit]) -> list[tuple[str, str]]:
    matching = sum(commit.matching for commit in commits)
    compared = matching + sum(commit.mismatching for commit in commits)
    return [("as expected", f"{matching:,} of {compared:,} ({matching / compared:.2%})")] if compared else []


def _rates(store: ShardStore) -> list[tuple[float, float]]:
    """Seconds since the first run began, and rows per second of all processes then."""
    rows: defaultdict[int, int] = defaultdict(int)
    files = [store.run_folder / METRICS_FILE, *files_of_shares(store.run_folder, METRICS_FILE)]
    for file in filter(Path.exists, files):
        for line in file.read_text().splitlines():
            try:
                record = json.loads(line)
                rows[int(record["time"])] += int(record["rows_finished"])
            except (ValueError, TypeError, KeyError):
                continue  # torn by a crash
    if not rows:
        return []
    first, last = min(rows), max(rows)
    width = max(-(-(last - first + 1) // _POINTS), 1)
    sums: Counter[int] = Counter()
    for second, count in rows.items():
        sums[(second - first) // width] += count
    return [(point * width, sums[point] / width) for point in range((last - first) // width + 1)]


def _chart(rates: Sequence[tuple[float, float]]) -> str:
    if len(rates) < 2:
        return ""
    width, height = _CHART
    highest = max(rate for _, rate in rates) or 1.0
    seconds = rates[-1][0]
    points = " ".join(f"{x / seconds * width:.1f},{height - y / highest * (height - 20):.1f}" for x, y in rates)
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img"><polyline points="{points}" fill="none" stroke="#06c" '
        f'stroke-width="1.5"/><text x="4" y="14" font-size="12">{highest:,.0f} rows/s</text>'
        f'<text x="{width - 4}" y="14" font-size="12" text-anchor="end">{seconds:,.0f} s</text></svg>'
    )


def _errors(store: ShardStore, commits: Sequence[Commit]) -> str:
    first_shards: dict[str, int] = {}
    for commit in sorted(commits, key=lambda commit: commit.shard):
        for kind in commit.errors:
            first_shards.setdefault(kind, commit.shard)
    rows = []
    for kind, count in errors_by_kind(commits).most_common():
        table = store.read(first_shards[kind], ["row_id", "error"]).to_pylist()
        examples = [row for row in table if (row["error"] or "").startswith(f"{kind}: ")][:_FAILURES_SHOWN]
        rows.append((kind, f"{count:,}", "\n".join(f"{row['row_id']}: {row['error']}" for row in examples)))
    return _table(rows, ("kind", "rows", "such as"))


def _first_rows(store: ShardStore) -> str:
    committed = store.committed()
    if not committed:
        return ""
    rows = store.read(committed[0], ["row_id", "text", "score", "error"]).slice(0, _ROWS_SHOWN).to_pylist()
    name = next((name for name in ("text", "score") if rows and name in rows[0]), "embedding")
    shown = [(row["row_id"], row["error"] or str(row.get(name, "(numbers)"))) for row in rows]
    return _table(shown, ("row_id", name))


def _section(title: str, content: str) -> str:
    return f"<h2>{escape(title)}</h2>{content}" if content else ""


def _table(rows: Sequence[Sequence[str]], names: Sequence[str] = ()) -> str:
    if not rows:
        return ""
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    body = "".join(f"<tr>{''.join(f'<td><pre>{_cut(cell)}</pre></td>' for cell in row)}</tr>" for row in rows)
    return f"<table>{f'<tr>{head}</tr>' if head else ''}{body}</table>"


def _cut(text: str) -> str:
    return escape(text if len(text) <= _TEXT_CHARACTERS else f"{text[:_TEXT_CHARACTERS]} …")


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
