"""When things happened in a job: what held it up, its breaks, its runs, errors over time."""

import time
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate, pairwise
from pathlib import Path

from run_batch.jobs.job.shares import files_of_shares
from run_batch.jobs.results.shard_commits import Commit
from run_batch.jobs.watch.charts import duration
from run_batch.jobs.watch.page import note, table
from run_batch.jobs.watch.run_end import RUNS_FILE, read_runs
from run_batch.jobs.watch.running_rates import RunningRates, Totals

_BLOCKS = "▁▂▃▄▅▆▇█"
# Columns of a curve that is drawn as text.
_COLUMNS = 32
_LISTED_BREAKS = 10
_WAITS_FOR = {
    "engine": "the model (as it should be)",
    "mapping": "the worker processes: images and prompts",
    "input": "reading the input",
    "output": "writing shards",
}


def clock(seconds: float) -> str:
    """A time of the day for people, in the time zone of this machine."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def waits(rates: RunningRates) -> list[str]:
    """What held the job up, and its breaks, as HTML."""
    stages, found = _held_up(rates), _breaks(rates)
    return [
        note("What it waited for, over the time that it ran, all processes together:") if stages else "",
        table(stages, ("waited for", "of its time", "when", "longest time")),
        note("When no process ran:") if found else "",
        table(found, ("from", "to", "for")),
    ]


def processes(run_folder: Path, rates: RunningRates, listed: int) -> list[str]:
    """What each share has done, and each process that a share has had, as HTML.

    Args:
        listed: so many of each at most.
    """
    shares, runs = _share_table(rates, listed), _run_table(run_folder, listed)
    return [
        note("By share, or engine:") if shares else "",
        table(shares, ("share", "ran for", "rows", "rows/s", "tokens/s, generated and of prompts")),
        note(f"Processes, the last {len(runs)}:") if runs else "",
        table(runs, ("share", "host", "from", "to", "exit code")),
    ]


def curve(values: Sequence[float]) -> str:
    """Values over time as text: a block each, a dot where there is nothing."""
    count = min(_COLUMNS, len(values))
    cuts = [len(values) * i // count for i in range(count + 1)] if count else []
    sums = [sum(values[start:stop]) / max(stop - start, 1) for start, stop in pairwise(cuts)]
    highest = max(sums, default=0.0)
    return "".join("·" if value <= 0 else _BLOCKS[min(int(value / highest * 8), 7)] for value in sums)


def _held_up(rates: RunningRates) -> list[tuple[str, str, str, str]]:
    """By stage: what the run waited for, in how much of its time, when, and its longest stretch of that."""
    whole = sum(map(sum, rates.stages.values()))
    rows = []
    for stage in sorted(rates.stages, key=lambda name: -sum(rates.stages[name])):
        parts = rates.stages[stage]
        seconds = sum(parts)
        rows.append((f"{stage}: {_WAITS_FOR[stage]}", f"{seconds / whole:.1%}", curve(parts), _longest(rates, stage)))
    return rows


def _longest(rates: RunningRates, stage: str) -> str:
    """The longest time in which a stage was the bottleneck of most processes."""
    count = len(rates.rates)
    most = [max(rates.stages, key=lambda name: rates.stages[name][part]) for part in range(count)]
    stretches, start = [(0, 0)], None
    for part in range(count + 1):
        if part < count and most[part] == stage and rates.stages[stage][part] > 0:
            start = part if start is None else start
        elif start is not None:
            stretches.append((part - start, start))
            start = None
    length, begin = max(stretches, key=lambda stretch: stretch[0])
    if not length:
        return "never for most processes"
    width = rates.seconds / count
    return f"{duration(length * width)} from {clock(_clock_of(rates, begin * width))}"


def _clock_of(rates: RunningRates, at: float) -> float:
    """The time of the day after so many seconds of running."""
    for start, stop in rates.runs:
        if at <= stop - start:
            return start + at
        at -= stop - start
    return rates.runs[-1][1]


def _breaks(rates: RunningRates) -> list[tuple[str, str, str]]:
    """The longest times in which no process ran, in their order: from, to, and how long."""
    found = [(before[1], after[0]) for before, after in pairwise(rates.runs)]
    longest = sorted(found, key=lambda gap: gap[0] - gap[1])[:_LISTED_BREAKS]
    return [(clock(start), clock(stop), duration(stop - start)) for start, stop in sorted(longest)]


def errors_over_time(rates: RunningRates, commits: Iterable[Commit]) -> Mapping[str, tuple[str, str, str]]:
    """By kind of error: when shards with such rows were committed, as a curve, the first time and the last one."""
    count = len(rates.rates) or 1
    width = rates.seconds / count or 1.0
    begins = [0.0, *accumulate(stop - start for start, stop in rates.runs)]
    parts: dict[str, list[float]] = {}
    times: dict[str, list[float]] = {}
    for commit in commits:
        for kind, rows in commit.errors.items():
            place = min(int(_running_at(rates, begins, commit.time) / width), count - 1)
            parts.setdefault(kind, [0.0] * count)[place] += rows
            seen = times.setdefault(kind, [commit.time, commit.time])
            seen[:] = min(seen[0], commit.time), max(seen[1], commit.time)
    return {kind: (curve(parts[kind]), clock(times[kind][0]), clock(times[kind][1])) for kind in parts}


def _running_at(rates: RunningRates, begins: Sequence[float], moment: float) -> float:
    """After how many seconds of running a time of the day was; `begins` has those at which each run began."""
    place = bisect_right(rates.runs, (moment, float("inf"))) - 1
    if place < 0:
        return 0.0
    start, stop = rates.runs[place]
    return begins[place] + min(moment, stop) - start


def _run_table(run_folder: Path, listed: int) -> list[tuple[str, str, str, str, str]]:
    """The processes of a job, as many of the last ones as are listed: share, host, from, to, exit code."""
    runs = []
    for file in [run_folder / RUNS_FILE, *files_of_shares(run_folder, RUNS_FILE)]:
        label = "whole job" if file.parent == run_folder else file.parent.name
        runs += [(run.began, label, run) for run in read_runs(file)]
    shown = sorted(runs, key=lambda found: found[:2])[-listed:]
    return [
        (
            label,
            run.host,
            clock(run.began),
            "no word of its end" if run.ended is None else clock(run.ended),
            "" if run.exit_code is None else str(run.exit_code),
        )
        for _, label, run in shown
    ]


def _share_table(rates: RunningRates, listed: int) -> list[tuple[str, str, str, str, str]]:
    """By share or engine: how long it ran, its rows, and its rows and tokens per second."""
    totals = sorted(rates.totals.items(), key=lambda item: (len(item[0]), item[0]))
    return [(label, *_speeds(total)) for label, total in totals[:listed]]


def _speeds(total: Totals) -> tuple[str, str, str, str]:
    seconds = max(total.seconds, 1e-9)
    return (
        duration(total.seconds),
        f"{total.rows:,}",
        f"{total.rows / seconds:,.1f}",
        f"{total.generated_tokens / seconds:,.0f} and {total.prompt_tokens / seconds:,.0f}",
    )
