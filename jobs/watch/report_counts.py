"""What a report counts: its headline, all counts of the job, errors by kind, and how long it took."""

import math
import time
from collections.abc import Sequence

from run_batch.io.outputs.shards import ShardError, ShardStore
from run_batch.jobs.job.recorded_job import JobRecord
from run_batch.jobs.results.shard_commits import Commit, errors_by_kind
from run_batch.jobs.watch.charts import amount
from run_batch.jobs.watch.job_folder import JobFolder
from run_batch.jobs.watch.page import note, table
from run_batch.jobs.watch.report_processes import WorkTime
from run_batch.jobs.watch.report_times import errors_over_time
from run_batch.jobs.watch.running_rates import RunningRates
from run_batch.jobs.watch.share_status import State
from run_batch.jobs.watch.status import JobStatus
from run_batch.jobs.watch.times import clock, duration

# Kinds of errors, shares and versions that are listed.
_LISTED = 64


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
        *_held_up(rates),
    ]


def _state(status: JobStatus) -> str:
    """What is known of the state: where and when the job stopped, how, what it waits for."""
    state = State(status.state, status.host, status.last_seen, status.silent_seconds, status.why, status.exit_code)
    known = state.as_text().removeprefix(status.state).strip(" :()")
    why = status.why if status.state == "stopped" else ""
    return "; ".join(filter(None, [known, why]))


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
    return f"without {count:,} break{'s' if count > 1 else ''} of {duration(seconds)} in all" if count else "no breaks"


def _held_up(rates: RunningRates) -> list[tuple[str, str, str]]:
    """The stage that was waited for most."""
    if not rates.stages:
        return []
    sums = {stage: sum(parts) for stage, parts in rates.stages.items()}
    most = max(sums, key=lambda stage: sums[stage])
    return [("waited for", most, f"in {sums[most] / sum(sums.values()):.0%} of the time")]


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


def errors(store: ShardStore, commits: Sequence[Commit], rates: RunningRates) -> list[str]:
    """Errors by kind: how many rows, an example, when; and how to try rows again; as HTML."""
    first_shards: dict[str, int] = {}
    for commit in sorted(commits, key=lambda commit: commit.shard):
        for kind in commit.errors:
            first_shards.setdefault(kind, commit.shard)
    counted = errors_by_kind(commits).most_common(_LISTED)
    times = errors_over_time(rates, commits)
    rows = [(kind, f"{count:,}", *_example(store, first_shards[kind], kind), times[kind]) for kind, count in counted]
    again = (
        "Try one again: run-batch try --config job.toml --row ID. All of them, once their cause is mended: run-batch "
        "--config job.toml --retry-failed"
    )
    return [
        table(rows, ("kind", "rows", "such as row", "which says", "when")),
        note(again) if rows else "",
    ]


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
    hours = f"{worked.process_seconds / 3600:,.2f} h, each on {gpus} GPU{'s' if gpus > 1 else ''} where it has GPUs"
    versions = [", ".join(f"{name} {version}" for name, version in each.items()) for each in job.versions]
    rows = [
        ("ran for", f"{duration(worked.seconds)}, without breaks; {duration(rates.seconds)} of it finishing rows"),
        ("processes", f"{len(rates.processes):,} in all"),
        ("hours of processes", hours),
        *_first([("made by", version) for version in versions], "versions"),
    ]
    return [table(rows)] if rates.processes else []
