"""What the bar of a run, and the lines in its place, say: as much as fits into the width."""

from dataclasses import dataclass

# A narrower bar shows nothing that the numbers do not.
_NARROWEST_BAR = 8
# What stands around the bar.
_AROUND_BAR = len(" || ")


@dataclass(frozen=True, slots=True)
class Counts:
    """What is shown of a run at one moment.

    Attributes:
        done, total, failed: rows.
        rows_per_second, tokens_per_second: of the last half minute.
        bottleneck: the slowest stage; empty while it is not known.
    """

    done: int
    total: int
    failed: int
    rows_per_second: float
    tokens_per_second: float
    bottleneck: str = ""

    @property
    def seconds_left(self) -> float | None:
        """At this rate; None while there is none."""
        return (self.total - self.done) / self.rows_per_second if self.rows_per_second > 0 else None


def bar_format(counts: Counts, width: int) -> str:
    """The `bar_format` of tqdm for a terminal of so many columns.

    Rows, rows per second, time left, failures and bottleneck stand there at 60 columns, too; tokens and bar where they
    fit.
    """
    left = "? left" if counts.seconds_left is None else f"{duration(counts.seconds_left)} left"
    rate, tokens = f"{counts.rows_per_second:.1f} rows/s", f"{counts.tokens_per_second:.0f} tokens/s"
    slowest = [counts.bottleneck] if counts.bottleneck else []
    tail = [left, f"{counts.failed} failed", *slowest]
    rows = f"{counts.done}/{counts.total}"
    for shown in ([rate, tokens, *tail], [rate, *tail]):
        if width - len(rows) - len(", ".join(shown)) - _AROUND_BAR >= _NARROWEST_BAR:
            return f"{rows} |{{bar}}| {', '.join(shown)}"
    text = ", ".join([rows, rate, *tail])
    return text if len(text) < width else _tight(counts)


def _tight(counts: Counts) -> str:
    """The same in 60 columns, whatever the numbers are."""
    seconds = counts.seconds_left
    left = "?" if seconds is None else duration(seconds).replace(" ", "")
    rows, rate = f"{_short(counts.done)}/{_short(counts.total)}", f"{_short(counts.rows_per_second)} rows/s"
    return f"{rows} {rate} {left} left {_short(counts.failed)} failed {counts.bottleneck}"


def _short(number: float) -> str:
    """A number in six characters at most: `1.25M` for 1,250,000."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        value = number / size
        if value >= 1 and number >= 10_000:
            return f"{value:.{2 if value < 9.99 else 1 if value < 99.9 else 0}f}{unit}"
    return f"{number:.0f}" if isinstance(number, int) or number >= 1000 else f"{number:.1f}"


def plain_line(counts: Counts) -> str:
    """A line for a file, which may be as wide as it has to be."""
    seconds = counts.seconds_left
    left = "time left unknown" if seconds is None else f"{duration(seconds)} left"
    slowest = f", bottleneck: {counts.bottleneck}" if counts.bottleneck else ""
    return (
        f"{counts.done} of {counts.total} rows, {counts.rows_per_second:.1f} rows/s, "
        f"{counts.tokens_per_second:.0f} tokens/s, {counts.failed} failed, {left}{slowest}"
    )


def duration(seconds: float) -> str:
    """A time for people: `12.3 s`, `45 min`, `3 h 05 min`, `12 d 07 h`."""
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    if minutes >= 100 * 60:
        return f"{minutes // 1440} d {minutes % 1440 // 60:02d} h"
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d} min"
