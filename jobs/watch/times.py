"""Times and durations for people."""

import time
from collections.abc import Sequence


def clock(seconds: float) -> str:
    """A time of the day, in the time zone of this machine."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def clock_after(seconds: float, before: float | None) -> str:
    """A time of the day, without the date where that is the day of `before`."""
    shown = clock(seconds)
    day, _, of_day = shown.partition(" ")
    return of_day if before is not None and clock(before).startswith(day) else shown


def span(start: float, stop: float) -> str:
    """From when to when."""
    return clock(start) if clock(start) == clock(stop) else f"{clock(start)} to {clock_after(stop, start)}"


def counted(count: int, what: str) -> str:
    """A number of things, such as `1 gap` or `2 gaps`."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def clock_of(runs: Sequence[tuple[float, float]], at: float) -> float:
    """The time after so many seconds of running.

    Args:
        runs: from when to when something ran, in seconds since the epoch, ascending; one at least.
    """
    for start, stop in runs:
        if at <= stop - start:
            return start + at
        at -= stop - start
    return runs[-1][1]


def duration(seconds: float) -> str:
    """A duration."""
    for size, name in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:,.1f} {name}"
    return f"{seconds:,.0f} s"
