"""Who worked on a job, and when: its processes, what each share and each host did, and when nobody ran it."""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from run_batch.jobs.watch.page import block, note, table
from run_batch.jobs.watch.run_end import exit_in_words
from run_batch.jobs.watch.running_rates import ProcessRun, RunningRates, joined
from run_batch.jobs.watch.times import clock, clock_after, counted, duration

_KILLED = (
    "A process that is killed may tell nothing of its last second, and rows that it had not saved are generated again."
)
# What a process that has not ended does, by its state.
_LIVING = {
    "running": "still running",
    "loading": "still running: it loads",
    "waiting": "still running: it waits",
    "stalled": "stalled: no sign of life",
}
# Breaks that are listed, the longest ones.
_LISTED_BREAKS = 12


@dataclass(frozen=True, slots=True)
class WorkTime:
    """The time of a job.

    Attributes:
        runs: from when to when there was a process, its loading included; in seconds since the epoch, ascending.
        process_seconds: of all processes, added up.
        seconds_before_rows: of that time, until rows were finished, in each stretch of it: models loaded.
    """

    runs: Sequence[tuple[float, float]]
    process_seconds: float
    seconds_before_rows: float = 0.0

    @property
    def seconds(self) -> float:
        """In which there was a process."""
        return sum(stop - start for start, stop in self.runs)

    @property
    def breaks(self) -> Sequence[tuple[float, float]]:
        """From when to when there was none."""
        return [(before[1], after[0]) for before, after in pairwise(self.runs)]


def work_time(rates: RunningRates) -> WorkTime:
    """When there was a process, by what processes have noted, and by the lines that they have written."""
    times = [(process.run.began, process.until) for process in rates.processes]
    runs = joined(times)
    return WorkTime(runs, sum(stop - start for start, stop in times), _before_rows(runs, rates.runs))


def _before_rows(runs: Sequence[tuple[float, float]], finishing: Sequence[tuple[float, float]]) -> float:
    """In how many seconds of `runs` no row had been finished since the begin of each; `finishing` is when some were."""
    seconds = 0.0
    for start, stop in runs:
        place = bisect_left(finishing, start, key=lambda found: found[0])
        seconds += max(min(finishing[place][0] if place < len(finishing) else stop, stop) - start, 0.0)
    return seconds


def breaks(worked: WorkTime) -> list[str]:
    """When nobody ran the job, as HTML."""
    if not worked.breaks:
        return []
    longest = sorted(worked.breaks, key=lambda gap: gap[0] - gap[1])[:_LISTED_BREAKS]
    rows = [(clock(start), clock_after(stop, start), duration(stop - start)) for start, stop in sorted(longest)]
    of_all = f"the {len(rows)} longest of " if len(rows) < len(worked.breaks) else ""
    title = f"When nobody ran it: {of_all}{counted(len(worked.breaks), 'break')}"
    return [block(title, table(rows, ("from", "to", "for")))]


def processes(rates: RunningRates, listed: int, living: Mapping[str, str], done: int) -> list[str]:
    """What each host and each share has done, and each process that there was, as HTML.

    Args:
        listed: so many of each at most.
        living: see `living_processes`.
        done: rows of the job that are finished.
    """
    worked = [process for process in rates.processes if process.seconds]
    hosts = _by(worked, lambda process: process.run.host)
    shares = _by(worked, lambda process: process.label)
    speeds = ("finished rows for", "rows", "rows/s", "generated tokens/s", "prompt tokens/s")
    last = rates.processes[-listed:]
    latest = {process.label: process for process in rates.processes}
    states = [living.get(process.label, "") if process is latest[process.label] else "" for process in rates.processes]
    killed = any(
        process.run.ended is None and not state for process, state in zip(rates.processes, states, strict=True)
    )
    again = "" if living else _again(sum(process.rows for process in worked) - done)
    days = [None, *(process.run.began for process in last)]
    rows = [_process(*found) for found in zip(last, states[-listed:], days, strict=False)]
    return [
        *_table(hosts, "host", speeds, listed, note(again)),
        *(_table(shares, "share", ("hosts", *speeds), listed, "", _hosts) if len(shares) > 1 else []),
        block(
            f"Processes, the last {len(last)} of {len(rates.processes):,}",
            table(rows, ("from", "to", "exit code", "rows", "host", "share")),
            note(_KILLED) if killed else "",
            is_wide=True,
        )
        if last
        else "",
    ]


def _again(rows: int) -> str:
    """What is told of rows that several processes have finished."""
    if rows <= 0:
        return ""
    return (
        f"{rows:,} of these rows were generated twice, and count twice here, and in no other place: a process that was "
        "killed had not saved them, or --retry-failed had them again."
    )


def _by(worked: Iterable[ProcessRun], name: Callable[[ProcessRun], str]) -> dict[str, list[ProcessRun]]:
    found: dict[str, list[ProcessRun]] = {}
    for process in worked:
        found.setdefault(name(process), []).append(process)
    return found


def _table(
    groups: dict[str, list[ProcessRun]],
    what: str,
    names: Sequence[str],
    listed: int,
    remark: str,
    more: Callable[[Sequence[ProcessRun]], tuple[str, ...]] = lambda of_group: (),
) -> list[str]:
    """What groups of processes did, the slowest first."""
    slowest = sorted(groups, key=lambda name: (_per_second(groups[name], "rows"), name))
    rows = [(name, *more(groups[name]), *_speeds(groups[name])) for name in slowest[:listed]]
    of_all = f", {listed} of {len(groups):,}" if len(groups) > listed else ""
    return (
        [block(f"By {what}, the slowest first{of_all}", table(rows, (what, *names)), remark, is_wide=True)]
        if rows
        else []
    )


def _hosts(of_share: Sequence[ProcessRun]) -> tuple[str]:
    names = list(dict.fromkeys(process.run.host for process in of_share))
    return (", ".join(names[-3:]) + (f" and {len(names) - 3} before" if len(names) > 3 else ""),)


def _speeds(of_group: Sequence[ProcessRun]) -> tuple[str, ...]:
    """For how long any of some processes finished rows; how many; and per second of that time, rows and tokens."""
    rates = (_per_second(of_group, name) for name in ("generated_tokens", "prompt_tokens"))
    return (
        duration(_seconds(of_group)),
        f"{sum(process.rows for process in of_group):,}",
        f"{_per_second(of_group, 'rows'):,.1f}",
        *(f"{rate:,.0f}" for rate in rates),
    )


def _per_second(of_group: Sequence[ProcessRun], name: str) -> float:
    return float(sum(getattr(process, name) for process in of_group) / _seconds(of_group))


def _seconds(of_group: Iterable[ProcessRun]) -> float:
    """In which at least one of some processes finished rows; of processes side by side, each second counts once."""
    return sum(stop - start for start, stop in joined((process.first, process.last) for process in of_group))


def _process(process: ProcessRun, state: str, before: float | None) -> tuple[str, ...]:
    """A line of the table of processes.

    Args:
        state: of one that has not ended; else empty.
        before: when the process of the line before began.
    """
    run = process.run
    began, ended = clock_after(run.began, before), clock_after(process.until, run.began)
    code = ": ".join(filter(None, ["" if run.exit_code is None else str(run.exit_code), exit_in_words(run.exit_code)]))
    if run.ended is None:
        ended, code = (_LIVING.get(state, state), "") if state else (f"{ended} or later", code)
    return began, ended, code, f"{process.rows:,}", run.host, process.label
