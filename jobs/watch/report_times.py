"""When things happened in a job: its rates, what held it up, errors over time."""

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate, pairwise

from run_batch.jobs.results.shard_commits import Commit
from run_batch.jobs.watch.charts import rate_chart, stage_chart
from run_batch.jobs.watch.page import block, note, table
from run_batch.jobs.watch.report_processes import WorkTime
from run_batch.jobs.watch.running_rates import RunningRates
from run_batch.jobs.watch.times import clock, clock_of, counted, duration, span

_BLOCKS = "▁▂▃▄▅▆▇█"
# Columns of a curve that is drawn as text.
_COLUMNS = 16
_WAITS_FOR = {
    "engine": "the model (as it should be)",
    "mapping": "the worker processes: images and prompts",
    "input": "reading the input",
    "output": "writing shards",
}


def speed(rates: RunningRates, worked: WorkTime) -> list[str]:
    """Rows and tokens per second over time, what held the job up, and when, as HTML."""
    return [
        block("Rows per second", rate_chart(rates, rates.rates, "rows/s"), note(_left_out(rates, worked))),
        block("Generated tokens per second", rate_chart(rates, rates.generated_tokens, "generated tokens/s")),
        block("Prompt tokens per second", rate_chart(rates, rates.prompt_tokens, "prompt tokens/s")),
        block("What the processes waited for, over time", stage_chart(rates)),
        block("What held the job up", *_holdups(rates, worked)),
    ]


def _holdups(rates: RunningRates, worked: WorkTime) -> list[str]:
    stages = _held_up(rates)
    if not stages:
        return []
    return [
        note(
            f"The job ran for {duration(worked.seconds)}: {duration(worked.seconds_before_rows)} until it finished "
            f"rows (loading the model), {duration(rates.seconds)} while it did. Percentages are of the latter, all "
            "processes together."
        ),
        table(stages, ("waited for", "of that time", "longest time")),
    ]


def _left_out(rates: RunningRates, worked: WorkTime) -> str:
    if not rates.gaps:
        return ""
    gaps = [seconds for _, seconds in rates.gaps]
    nobody = sum(stop - start for start, stop in worked.breaks)
    return (
        f"Left out, where a line is dashed: {duration(sum(gaps))} in {counted(len(gaps), 'gap')}, of "
        f"{duration(max(gaps))} at most, in which no row was finished. In {duration(nobody)} of that, nobody ran the "
        "job; in the rest, a process started or ended."
    )


def curve(values: Sequence[float]) -> str:
    """Values over time as text: a block each, a dot where there is nothing."""
    count = min(_COLUMNS, len(values))
    cuts = [len(values) * i // count for i in range(count + 1)] if count else []
    sums = [sum(values[start:stop]) / max(stop - start, 1) for start, stop in pairwise(cuts)]
    highest = max(sums, default=0.0)
    return "".join("·" if value <= 0 else _BLOCKS[min(int(value / highest * 8), 7)] for value in sums)


def _held_up(rates: RunningRates) -> list[tuple[str, str, str]]:
    """By stage: what the run waited for, in how much of its time, and its longest stretch of that."""
    whole = sum(map(sum, rates.stages.values()))
    rows = []
    for stage in sorted(rates.stages, key=lambda name: -sum(rates.stages[name])):
        seconds = sum(rates.stages[stage])
        shown = f"{stage}: {_WAITS_FOR[stage]}"
        rows.append((shown, f"{seconds / whole:.1%}", _longest(rates, stage)))
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
        return "another stage was always waited for more"
    width = rates.seconds / count
    return f"{duration(length * width)} from {clock(clock_of(rates.runs, begin * width))}"


def errors_over_time(rates: RunningRates, commits: Iterable[Commit]) -> Mapping[str, str]:
    """By kind of error: when shards with such rows were committed, as a curve, and from when to when."""
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
    return {kind: f"{curve(parts[kind])}\n{span(*times[kind])}" for kind in parts}


def _running_at(rates: RunningRates, begins: Sequence[float], moment: float) -> float:
    """After how many seconds of running a time of the day was; `begins` has those at which each run began."""
    place = bisect_right(rates.runs, (moment, float("inf"))) - 1
    if place < 0:
        return 0.0
    start, stop = rates.runs[place]
    return begins[place] + min(moment, stop) - start
