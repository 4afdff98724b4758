"""`run-batch report`: one self-contained HTML file about a job.

It is made from the results folder, while the job runs or later; prompts and images are of the input, where that is
there. What a report takes of time and memory does not grow with the number of shards, but for their counts: rows are
sampled from few shards. See page.py for what data cannot do in it.
"""

import json
import math
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from run_batch.io.files import replace_file
from run_batch.io.outputs.shards import ShardError, ShardStore
from run_batch.jobs.job.errors import EXIT_COMPLETE, JobError, run_failed, storage_errors, storage_failed
from run_batch.jobs.job.recorded_job import JobRecord, read_recorded_job
from run_batch.jobs.results.shard_commits import Commit, errors_by_kind, read_commits
from run_batch.jobs.watch.charts import duration, rate_chart
from run_batch.jobs.watch.gallery import gallery
from run_batch.jobs.watch.job_folder import JobFolder
from run_batch.jobs.watch.page import DOCTYPE, note, page, plain, section, table
from run_batch.jobs.watch.report_answers import answers, expected_texts
from run_batch.jobs.watch.report_input import InputRows
from run_batch.jobs.watch.report_numbers import read_numbers
from run_batch.jobs.watch.report_sample import Sample, sample_rows
from run_batch.jobs.watch.report_times import clock, errors_over_time, processes, waits
from run_batch.jobs.watch.running_rates import RunningRates, running_rates
from run_batch.jobs.watch.share_processes import read_processes
from run_batch.jobs.watch.status import JobStatus, folder_status
from run_batch.jobs.watch.watching import watch_job

REPORT_FILE = "report.html"
# Bytes of all pictures, of which the page has four for every three; and of those of one row.
_PICTURE_BYTES, _ROW_PICTURE_BYTES = 3_600_000, 20_000
# Kinds of errors, shares, hosts and versions that are listed.
_LISTED = 64
_LISTED_SIZES = 12
_WATCH_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class ReportOptions:
    """What a report is to be.

    Attributes:
        output: its file; `.run_batch/report.html` where it is None.
        rows: most rows that it shows.
        seed: of the choice of rows.
    """

    output: Path | None = None
    rows: int = 200
    seed: int = 0


def report_job(folder: JobFolder, options: ReportOptions, watch: bool, summary: TextIO) -> int:
    """Write the page, and tell its path.

    Args:
        watch: write it again now and then, until the job is complete or idle for a minute.

    Raises:
        JobError, RunError: see `write_report`.
    """
    file, status = write_report(folder, options)
    print(file, file=summary, flush=True)
    if watch and status.state != "complete":
        time.sleep(_WATCH_SECONDS)
        watch_job(lambda: write_report(folder, options)[1], _WATCH_SECONDS)
    return EXIT_COMPLETE


def write_report(folder: JobFolder, options: ReportOptions | None = None) -> tuple[Path, JobStatus]:
    """Write the page.

    Returns:
        Its path, and the status that it tells of.

    Raises:
        JobError: the job has not been started, or `output` is no place for a page.
        RunError: the results folder cannot be read, or the file not be written.
    """
    options, store = options or ReportOptions(), folder.store
    if options.output is not None:
        _check_output(options.output)
    status, job = folder_status(folder), read_recorded_job(store)
    if job is None or status.state == "not started":
        raise JobError(f"{store.folder}: the job has not been started; there is nothing to report")
    file = options.output or store.run_folder / REPORT_FILE
    try:
        content = make_report(folder, job, status, options).encode()
    except (ShardError, OSError) as error:
        raise run_failed(f"the job in {store.folder} cannot be looked at: {error}", error) from error
    try:
        replace_file(file, content)
    except OSError as error:
        hint = "" if options.output else "; name another file by --output"
        raise storage_failed(f"{file} cannot be written{hint}", error) from error
    return file, status


def _check_output(file: Path) -> None:
    """Refuse a place where no file can be, and a file that is no page: data and job.toml are not written over."""
    with storage_errors(f"--output {file} cannot be looked at"):
        if not file.parent.is_dir():
            raise JobError(f"--output {file}: there is no folder {file.parent}")
        if file.is_dir():
            raise JobError(f"--output {file} is a folder; name a file, such as {file / REPORT_FILE}")
        if not file.exists():
            return
        with open(file, "rb") as found:
            if found.read(len(DOCTYPE)) != DOCTYPE.encode():
                raise JobError(f"--output {file} is there, and is no report; remove it, or name another file")


def make_report(folder: JobFolder, job: JobRecord, status: JobStatus, options: ReportOptions) -> str:
    """The HTML of the page.

    Raises:
        ShardError, OSError: the results folder cannot be read.
    """
    store = folder.store
    commits = read_commits(store, job.plan, [shard for shard in store.committed() if shard < job.plan.num_shards])
    numbers = read_numbers(store, commits.keys())
    sample = sample_rows(store, job.plan, commits, options.rows, options.seed, numbers)
    rates = running_rates(store.run_folder)
    rows, sizes = _rows(folder, sample, len(commits), options)
    settings = {**job.named, **job.identity}
    title = f"run-batch: {store.folder.name}"
    return page(
        title,
        [
            f"<header><h1>{plain(title)}</h1>{note(time.strftime('%Y-%m-%d %H:%M:%S %Z'))}</header>",
            section("Rows", table(_counts(status, list(commits.values())))),
            section("Rows per second", rate_chart(rates), *_gaps(rates), *waits(rates)),
            section("Errors", _errors(store, list(commits.values()), rates)),
            section("Expected and answered", *expected_texts(numbers)),
            section("Answers", *answers(numbers, len(commits))),
            section("Sizes of images", table(sizes, ("width and height", "images of the rows shown below"))),
            rows,
            section("Runs", table(_runs(folder, job, rates)), *processes(store.run_folder, rates, _LISTED)),
            section("Job", table([(name, _shown(value)) for name, value in settings.items() if value is not None])),
        ],
    )


def _counts(status: JobStatus, commits: Sequence[Commit]) -> list[tuple[str, str]]:
    generated = sum(commit.generated_tokens for commit in commits)
    rows = sum(commit.rows - commit.failed for commit in commits)
    shares = [(f"share {share.share}", share.as_text().partition(": ")[2]) for share in status.shares]
    return [
        ("state", status.state),
        ("rows", f"{status.rows:,}"),
        ("done", f"{status.done:,}"),
        ("failed", f"{status.failed:,} ({status.failed / max(status.done, 1):.2%} of those done)"),
        ("left", f"{status.left:,}"),
        *([("projected end", clock(time.time() + status.seconds_left))] if status.seconds_left is not None else []),
        ("ended by length", f"{status.truncated:,}"),
        *_accuracy(commits),
        ("shards committed", f"{status.shards_done:,} of {status.shards:,}"),
        ("prompt tokens", f"{sum(commit.prompt_tokens for commit in commits):,}"),
        ("generated tokens", f"{generated:,} ({generated / max(rows, 1):.1f} a row)"),
        *_first(shares, "shares"),
    ]


def _accuracy(commits: Sequence[Commit]) -> list[tuple[str, str]]:
    matching = sum(commit.matching for commit in commits)
    compared = matching + sum(commit.mismatching for commit in commits)
    return [("as expected", f"{matching:,} of {compared:,} ({matching / compared:.2%})")] if compared else []


def _first(rows: Sequence[tuple[str, str]], what: str) -> list[tuple[str, str]]:
    """So many rows of a table as are listed, and how many there are more."""
    more = [("more", f"{len(rows) - _LISTED:,} {what}")] if len(rows) > _LISTED else []
    return [*rows[:_LISTED], *more]


def _gaps(rates: RunningRates) -> list[str]:
    if not rates.gaps:
        return []
    longest = max(seconds for _, seconds in rates.gaps)
    left_out = sum(seconds for _, seconds in rates.gaps)
    text = (
        f"Left out, where a line is dashed: {duration(left_out)} in which no process ran, in {len(rates.gaps):,} breaks"
    )
    return [note(f"{text} of {duration(longest)} at most.")]


def _errors(store: ShardStore, commits: Sequence[Commit], rates: RunningRates) -> str:
    first_shards: dict[str, int] = {}
    for commit in sorted(commits, key=lambda commit: commit.shard):
        for kind in commit.errors:
            first_shards.setdefault(kind, commit.shard)
    counts = errors_by_kind(commits).most_common(_LISTED)
    times = errors_over_time(rates, commits)
    rows = [(kind, f"{count:,}", *times[kind], _example(store, first_shards[kind], kind)) for kind, count in counts]
    return table(rows, ("kind", "rows", "when", "first", "last", "such as"))


def _example(store: ShardStore, shard: int, kind: str) -> str:
    """The first row of a shard that failed so; empty where the shard has changed since it was counted."""
    try:
        for batch in store.batches(shard, ("row_id", "error")):
            for row in batch.filter(batch.column("error").is_valid()).to_pylist():
                if row["error"].startswith(f"{kind}: "):
                    return f"{row['row_id']}: {row['error']}"
    except ShardError as error:
        return str(error)
    return ""


def _rows(folder: JobFolder, sample: Sample, shards: int, options: ReportOptions) -> tuple[str, list[tuple[str, str]]]:
    """The sampled rows, and the sizes of their images."""
    if not sample.rows:
        return section("Sampled rows", *map(note, sample.unreadable)), []
    inputs = InputRows(folder, min(_ROW_PICTURE_BYTES, _PICTURE_BYTES // len(sample.rows)))
    found = inputs.read(sample.rows)
    sizes = Counter(size for cells in found.values() for size in cells.sizes)
    shown = [(f"{width} x {height}", f"{count:,}") for (width, height), count in sizes.most_common(_LISTED_SIZES)]
    others = len(sizes) - len(shown)
    return section(
        "Sampled rows",
        note(
            f"{len(sample.rows):,} rows: random ones of {sample.shards:,} of {shards:,} committed shards (seed "
            f"{options.seed}); of these and a few others some that failed and that are not as expected; and of all "
            "shards the longest and the slowest."
        ),
        note(inputs.problem),
        *(note(text, "bad") for text in sample.unreadable),
        gallery(sample.rows, found),
    ), [*shown, *([("others", f"{others:,} sizes")] if others else [])]


def _runs(folder: JobFolder, job: JobRecord, rates: RunningRates) -> list[tuple[str, str]]:
    store = folder.store
    hosts = sorted({process.host for process in read_processes(store.run_folder).values() if process.host})
    versions = [", ".join(f"{name} {version}" for name, version in each.items()) for each in job.versions]
    return [
        ("ran for", duration(rates.seconds)),
        *_engine_hours(folder, rates),
        ("breaks", f"{len(rates.gaps):,}"),
        *_first([("host", host) for host in hosts], "hosts"),
        *_first([("made by", version) for version in versions], "versions"),
    ]


def _engine_hours(folder: JobFolder, rates: RunningRates) -> list[tuple[str, str]]:
    hours = sum(total.seconds for total in rates.totals.values()) / 3600
    engine = folder.config.engine if folder.config is not None else {}
    sizes = (engine.get(name) for name in ("tensor_parallel_size", "pipeline_parallel_size"))
    gpus = math.prod(size for size in sizes if isinstance(size, int))
    return [("hours of engines", f"{hours:,.2f} h, each on {gpus} GPU{'s' if gpus > 1 else ''} where it runs on GPUs")]


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
