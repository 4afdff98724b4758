"""Who worked on a job, and when: its processes, what each share and each host did, and when nobody ran it."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from run_batch.jobs.watch.page import note, table
from run_batch.jobs.watch.running_rates import ProcessRun, RunningRates, joined
from run_batch.jobs.watch.times import clock, duration

_KILLED = (
    "A process that is killed may tell nothing of its last second. Rows that it had not saved are generated again: "
    "here they count for both processes, in no other place."
)
# Breaks that are listed, the longest ones.
_LISTED_BREAKS = 12


@dataclass(frozen=True, slots=True)
class WorkTime:
    """The time of a job.

    Attributes:
        runs: from when to when there was a process, its loading included; in seconds since the epoch, ascending.
        process_seconds: of all processes, added up.
    """

    runs: Sequence[tuple[float, float]]
    process_seconds: float

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
    return WorkTime(joined(times), sum(stop - start for start, stop in times))


def breaks(worked: WorkTime) -> list[str]:
    """When nobody ran the job, as HTML."""
    if not worked.breaks:
        return []
    longest = sorted(worked.breaks, key=lambda gap: gap[0] - gap[1])[:_LISTED_BREAKS]
    rows = [(clock(start), clock(stop), duration(stop - start)) for start, stop in sorted(longest)]
    of_all = f"the {len(rows)} longest of {len(worked.breaks):,} breaks" if len(rows) < len(worked.breaks) else "breaks"
    return [note(f"When nobody ran it ({of_all}):"), table(rows, ("from", "to", "for"))]


def processes(rates: RunningRates, listed: int) -> list[str]:
    """What each host and each share has done, and each process that there was, as HTML.

    Args:
        listed: so many of each at most.
    """
    worked = [process for process in rates.processes if process.seconds]
    hosts = _by(worked, lambda process: process.run.host)
    shares = _by(worked, lambda process: process.label)
    speeds = ("ran for", "rows", "rows/s", "generated tokens/s", "prompt tokens/s")
    last = rates.processes[-listed:]
    latest = {process.label: process for process in rates.processes}
    killed = any(process.run.ended is None and process is not latest[process.label] for process in rates.processes)
    return [
        *_table(hosts, "host", speeds, listed),
        *(_table(shares, "share", ("hosts", *speeds), listed, _hosts) if len(shares) > 1 else []),
        note(f"Processes, the last {len(last)} of {len(rates.processes):,}:") if last else "",
        table([_process(process) for process in last], ("from", "to", "exit code", "rows", "host", "share")),
        note(_KILLED) if killed else "",
    ]


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
    more: Callable[[Sequence[ProcessRun]], tuple[str, ...]] = lambda of_group: (),
) -> list[str]:
    """What groups of processes did, the slowest first."""
    slowest = sorted(groups, key=lambda name: (_per_second(groups[name], "rows"), name))
    rows = [(name, *more(groups[name]), *_speeds(groups[name])) for name in slowest[:listed]]
    of_all = f", {listed} of {len(groups):,}" if len(groups) > listed else ""
    return [note(f"By {what}, the slowest first{of_all}:"), table(rows, (what, *names))] if rows else []


def _hosts(of_share: Sequence[ProcessRun]) -> tuple[str]:
    names = list(dict.fromkeys(process.run.host for process in of_share))
    return (", ".join(names[-3:]) + (f" and {len(names) - 3} before" if len(names) > 3 else ""),)


def _speeds(of_group: Sequence[ProcessRun]) -> tuple[str, ...]:
    """For how long processes finished rows, added up; how many; and per second of that time, rows and tokens."""
    rates = (_per_second(of_group, name) for name in ("generated_tokens", "prompt_tokens"))
    return (
        duration(sum(process.seconds for process in of_group)),
        f"{sum(process.rows for process in of_group):,}",
        f"{_per_second(of_group, 'rows'):,.1f}",
        *(f"{rate:,.0f}" for rate in rates),
    )


def _per_second(of_group: Sequence[ProcessRun], name: str) -> float:
    return float(sum(getattr(process, name) for process in of_group) / sum(process.seconds for process in of_group))


def _process(process: ProcessRun) -> tuple[str, ...]:
    run = process.run
    ended = f"{clock(process.until)}\nor later: it left no word of its end" if run.ended is None else clock(run.ended)
    code = "" if run.exit_code is None else str(run.exit_code)
    return clock(run.began), ended, code, f"{process.rows:,}", run.host, process.label
