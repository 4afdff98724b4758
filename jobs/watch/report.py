"""`run-batch report`: one self-contained HTML file about a job.

It is made from the results folder, while the job runs or later; prompts and images are of the input, where that is
there. What a report takes of time and memory does not grow with the number of shards, but for their counts: rows are
sampled from few shards. See page.py for what data cannot do in it.
"""

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from run_batch.io.files import replace_file
from run_batch.io.outputs.shards import ShardError, ShardStore
from run_batch.jobs.job.errors import EXIT_COMPLETE, JobError, run_failed, storage_errors, storage_failed
from run_batch.jobs.job.recorded_config import recorded_tables
from run_batch.jobs.job.recorded_job import JobRecord, read_recorded_job
from run_batch.jobs.results.shard_commits import read_commits
from run_batch.jobs.watch.job_folder import JobFolder
from run_batch.jobs.watch.page import (
    DOCTYPE,
    block,
    columns,
    details,
    navigation,
    note,
    page,
    plain,
    section,
    table,
    tiles,
)
from run_batch.jobs.watch.report_answers import answers, expected_texts
from run_batch.jobs.watch.report_counts import counts, errors, headline, rows_compared, times
from run_batch.jobs.watch.report_numbers import read_numbers
from run_batch.jobs.watch.report_processes import breaks, processes, work_time
from run_batch.jobs.watch.report_rows import shown_rows
from run_batch.jobs.watch.report_sample import sample_rows
from run_batch.jobs.watch.report_times import speed
from run_batch.jobs.watch.running_rates import running_rates
from run_batch.jobs.watch.share_processes import living_processes
from run_batch.jobs.watch.status import JobStatus, folder_status
from run_batch.jobs.watch.times import clock
from run_batch.jobs.watch.watching import watch_job

REPORT_FILE = "report.html"
# Shares, hosts and processes that are listed.
_LISTED = 64
# Missing shards that are named.
_NAMED = 5
_WATCH_SECONDS = 30.0
# Sections without blocks, which take the width of the page.
_WIDE = ("Overview", "Rows", "Expected")


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
    rates, of_shards = running_rates(store.run_folder), list(commits.values())
    worked, living = work_time(rates), living_processes(store.run_folder)
    rows, sizes = shown_rows(folder, job, sample, len(commits), options.seed)
    sections = {
        "Overview": (tiles(headline(status, of_shards, rates, worked), _faults(status)), note(_missing(status), "bad")),
        "Rows": rows,
        "Expected": expected_texts(numbers, rows_compared(of_shards)),
        "Speed": speed(rates, worked),
        "Errors": errors(store, of_shards, rates, sample.rows),
        "Answers": answers(numbers, len(commits)),
        "Images": sizes,
        "Counts": [block("Of the whole job", table(counts(status, of_shards)))],
        "Processes": [
            *times(folder, job, rates, worked),
            *breaks(worked),
            *processes(rates, _LISTED, living, status.done),
        ],
        "Settings": _settings(store, job),
    }
    shown = {
        title: section(title, *(found if title in _WIDE else [columns(found)])) for title, found in sections.items()
    }
    name = "/".join(store.folder.absolute().parts[-2:])
    title, as_of = f"run-batch: {name}", f"as of {clock(time.time())} {time.strftime('%Z')}"
    return page(
        title,
        [
            f"<header><h1>{plain(title)}</h1>{note(as_of)}</header>",
            navigation(name for name, found in shown.items() if found),
            *shown.values(),
        ],
    )


def _faults(status: JobStatus) -> tuple[str, ...]:
    """Names of the tiles of the headline that tell of a fault: rows that have failed, of a complete job, too."""
    if not status.failed:
        return ()
    return ("failed", "state") if status.state == "complete" else ("failed",)


def _missing(status: JobStatus) -> str:
    names, count = ", ".join(status.missing[:_NAMED]), len(status.missing)
    return f"{count:,} shards are missing, although the job was complete: {names}" if count else ""


def _settings(store: ShardStore, job: JobRecord) -> list[str]:
    """The job.toml of the last run, and all that the results depend on, as HTML."""
    tables = recorded_tables(store)
    given = [(f"{name}.{key}", _shown(value)) for name, keys in tables.items() for key, value in keys.items()]
    known = [(name, _shown(value)) for name, value in {**job.named, **job.identity}.items() if value is not None]
    return [
        block("What job.toml had at the last run, without secrets", table(given)),
        block("All that the results depend on", details("show them", table(known)) if known else ""),
    ]


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
