"""What a report counts: its headline, all counts of the job, errors by kind, and how long it took."""

import math
import time
from collections.abc import Sequence

from run_batch.io.outputs.shards import ShardError, ShardStore
from run_batch.jobs.job.recorded_job import JobRecord
from run_batch.jobs.results.shard_commits import Commit, errors_by_kind
from run_batch.jobs.watch.charts import amount
from run_batch.jobs.watch.gallery import try_command
from run_batch.jobs.watch.job_folder import JobFolder
from run_batch.jobs.watch.page import block, command, table
from run_batch.jobs.watch.report_processes import WorkTime
from run_batch.jobs.watch.report_sample import SampledRow
from run_batch.jobs.watch.report_times import errors_over_time
from run_batch.jobs.watch.run_end import exit_in_words
from run_batch.jobs.watch.running_rates import RunningRates
from run_batch.jobs.watch.share_status import State
from run_batch.jobs.watch.status import JobStatus
from run_batch.jobs.watch.times import clock, counted, duration

# Kinds of errors, shares and versions that are listed; and kinds of which a row is tried again.
_LISTED, _TRIED = 64, 4

_RETRY = "run-batch --config job.toml --retry-failed"


def headline(
    status: JobStatus, commits: Sequence[Commit], rates: RunningRates, worked: WorkTime
) -> list[tuple[str, str, str]]:
    """What is seen first: name, value, and what is to be known of it."""
    return [
        ("state", status.state, _state(status)),
        ("done", f"{status.done:,}", f"{_part(status.done, status.rows)} of {status.rows:,}; {status.left:,} left"),
        ("failed", f"{status.failed:,}", f"{_part(status.failed, status.done)} of those done"),
        *_accuracy(commits),
        *_rates(status, rates),
        _end(status, worked),
        ("ran for", duration(worked.seconds), _breaks(worked)),
        ("ended by length", f"{status.truncated:,}", f"{_part(status.truncated, status.done)} of those done"),
        *_held_up(rates, worked),
    ]


def _state(status: JobStatus) -> str:
    """What is known of the state: where and when the job stopped, how, what it waits for, rows that have failed."""
    state = State(status.state, status.host, status.last_seen, status.silent_seconds, status.why, status.exit_code)
    known = state.as_text().removeprefix(status.state).strip(" :()")
    if status.state == "complete" and status.failed:
        known = f"but {counted(status.failed, 'row')} failed"
    if status.state != "stopped":
        return known
    meaning = exit_in_words(status.exit_code) if status.exit_code is not None and status.exit_code >= 0 else ""
    return "; ".join(filter(None, [known, meaning, status.why]))


def _part(count: int, of_all: int) -> str:
    return f"{count / max(of_all, 1):.2%}"


def rows_compared(commits: Sequence[Commit]) -> int:
    """Rows whose text was compared with an expected one."""
    return sum(commit.matching + commit.mismatching for commit in commits)


def _accuracy(commits: Sequence[Commit]) -> list[tuple[str, str, str]]:
    matching, compared = sum(commit.matching for commit in commits), rows_compared(commits)
    of_all = f"{matching:,} of {compared:,} rows that expect a text and did not fail"
    return [("as expected", _part(matching, compared), of_all)] if compared else []


def _rates(status: JobStatus, rates: RunningRates) -> list[tuple[str, str, str]]:
    """Rows and tokens per second: now, while it runs, and on average."""
    if not rates.seconds:
        return []
    rows, generated, prompt = (
        sum(parts) / len(parts) for parts in (rates.rates, rates.generated_tokens, rates.prompt_tokens)
    )
    average = ("rows/s", amount(rows), "on average while rows were finished")
    now = ("rows/s", amount(status.rows_per_second), f"now; {amount(rows)} on average")
    tokens = ("tokens/s", amount(generated), f"generated, and {amount(prompt)} of prompts, on average")
    return [now if status.rows_per_second else average, tokens]


def _end(status: JobStatus, worked: WorkTime) -> tuple[str, str, str]:
    if status.seconds_left is not None and status.left:
        end = clock(time.time() + status.seconds_left)
        return "projected end", end, f"in {duration(status.seconds_left)}, at the rate of now"
    if status.state == "complete":
        return "ended", clock(worked.runs[-1][1]) if worked.runs else "", ""
    return "projected end", "unknown", "no rate is known yet" if status.state == "running" else f"it is {status.state}"


def _breaks(worked: WorkTime) -> str:
    count, seconds = len(worked.breaks), sum(stop - start for start, stop in worked.breaks)
    return f"without {counted(count, 'break')} of {duration(seconds)} in all" if count else "no breaks"


def _held_up(rates: RunningRates, worked: WorkTime) -> list[tuple[str, str, str]]:
    """How long it took until there were rows, and the stage that was waited for most from then on."""
    if not rates.stages:
        return []
    sums = {stage: sum(parts) for stage, parts in rates.stages.items()}
    most = max(sums, key=lambda stage: sums[stage])
    part = f"{sums[most] / sum(sums.values()):.0%} of the {duration(rates.seconds)} in which it finished rows"
    start = f"of the {duration(worked.seconds)} that it ran: loading the model"
    return [("before the first rows", duration(worked.seconds_before_rows), start), ("waited for", most, f"in {part}")]


def counts(status: JobStatus, commits: Sequence[Commit]) -> list[tuple[str, str]]:
    """All counts: name and value."""
    generated = sum(commit.generated_tokens for commit in commits)
    rows = sum(commit.rows - commit.failed for commit in commits)
    shares = [(f"share {share.share}", share.as_text().partition(": ")[2]) for share in status.shares]
    uploaded = [] if status.uploaded is None else [("shards uploaded", f"{status.uploaded:,} of {status.shards:,}")]
    return [
        ("rows", f"{status.rows:,}"),
        ("done", f"{status.done:,}"),
        ("failed", f"{status.failed:,} ({_part(status.failed, status.done)} of those done)"),
        ("left", f"{status.left:,}"),
        ("ended by length", f"{status.truncated:,}"),
        ("shards committed", f"{status.shards_done:,} of {status.shards:,}"),
        *uploaded,
        ("prompt tokens", f"{sum(commit.prompt_tokens for commit in commits):,}"),
        ("generated tokens", f"{generated:,} ({generated / max(rows, 1):.1f} a row)"),
        *_first(shares, "shares"),
    ]


def _first(rows: Sequence[tuple[str, str]], what: str) -> list[tuple[str, str]]:
    """So many rows of a table as are listed, and how many there are more."""
    more = [("more", f"{len(rows) - _LISTED:,} {what}")] if len(rows) > _LISTED else []
    return [*rows[:_LISTED], *more]


def errors(store: ShardStore, commits: Sequence[Commit], rates: RunningRates, shown: Sequence[SampledRow]) -> list[str]:
    """Errors by kind: how many rows, an example, when; and how to try rows again; as HTML.

    Args:
        shown: rows of the page, of which examples are, where one has failed so.
    """
    first_shards: dict[str, int] = {}
    for commit in sorted(commits, key=lambda commit: commit.shard):
        for kind in commit.errors:
            first_shards.setdefault(kind, commit.shard)
    counted_kinds, times = errors_by_kind(commits).most_common(_LISTED), errors_over_time(rates, commits)
    examples = _shown_examples(shown)
    for kind, _ in counted_kinds:
        if kind not in examples:
            examples[kind] = _example(store, first_shards[kind], kind)
    rows = [(kind, f"{count:,}", *examples[kind], times[kind]) for kind, count in counted_kinds]
    if not rows:
        return []
    names = ("kind", "rows", "such as row", "which says", "when")
    tries = [command(try_command(examples[kind][0])) for kind, _ in counted_kinds[:_TRIED]]
    return [
        block("By kind", table(rows, names), is_wide=True),
        block("Try one again", *dict.fromkeys(tries)),
        block("Try all of them again, once their cause is mended", command(_RETRY)),
    ]


def _shown_examples(shown: Sequence[SampledRow]) -> dict[str, tuple[str, str]]:
    """By kind of error: id and message of the first row of the page that has it."""
    found: dict[str, tuple[str, str]] = {}
    for row in shown:
        kind, _, message = (row.cells.get("error") or "").partition(": ")
        if kind:
            found.setdefault(kind, (row.cells["row_id"], message))
    return found


def _example(store: ShardStore, shard: int, kind: str) -> tuple[str, str]:
    """Id and message of the first row of a shard that failed so; empty where it has changed since it was counted."""
    try:
        for batch in store.batches(shard, ("row_id", "error")):
            for row in batch.filter(batch.column("error").is_valid()).to_pylist():
                found, _, message = row["error"].partition(": ")
                if found == kind:
                    return row["row_id"], message
    except ShardError as error:
        return "", str(error)
    return "", ""


def times(folder: JobFolder, job: JobRecord, rates: RunningRates, worked: WorkTime) -> list[str]:
    """How long a job took, and with which versions, as HTML."""
    engine = folder.config.engine if folder.config is not None else {}
    sizes = (engine.get(name) for name in ("tensor_parallel_size", "pipeline_parallel_size"))
    gpus = math.prod(size for size in sizes if isinstance(size, int))
    of_all = f"{duration(worked.process_seconds)}, each on {counted(gpus, 'GPU')} where it has GPUs"
    versions = [", ".join(f"{name} {version}" for name, version in each.items()) for each in job.versions]
    rows = [
        ("ran for", f"{duration(worked.seconds)}, without breaks"),
        ("before the first rows", duration(worked.seconds_before_rows)),
        ("finishing rows", duration(rates.seconds)),
        ("processes", f"{len(rates.processes):,} in all"),
        ("time of processes", of_all),
        *_first([("made by", version) for version in versions], "versions"),
    ]
    return [block("How long it took", table(rows))] if rates.processes else []
