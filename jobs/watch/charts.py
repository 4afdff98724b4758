"""Charts of a report, as SVG inside of its page: curves over the time that a job ran, and bars."""

from collections.abc import Mapping, Sequence
from html import escape

from run_batch.jobs.watch.running_rates import STAGES, RunningRates
from run_batch.jobs.watch.times import clock, clock_of, duration

# In units of the drawing, of which a column of the page shows about one by pixel.
_WIDTH, _HEIGHT, _TOP, _BOTTOM = 460, 130, 22, 20
_STRIP_HEIGHT = 70
_WIDEST_BAR = 90
# Parts of a chart's width at which its time is told.
_TICKS = (0.4, 0.65)
_MARKED_GAPS = 100
# A number over each bar would touch the next one's, where the bars are narrower.
_LABELLED_BAR = 30


def rate_chart(found: RunningRates, values: Sequence[float], unit: str) -> str:
    """A rate over the time that the job ran, with a dashed line where there is a gap; nothing where none is known.

    Args:
        values: the rate in equal parts of that time.
        unit: such as `rows/s`.
    """
    if not values or not any(values):
        return ""
    highest, mean = max(values), sum(values) / len(values)
    step = _WIDTH / len(values)
    corners = [(place * step + side, _y(rate / highest)) for place, rate in enumerate(values) for side in (0.0, step)]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in corners)
    return _svg(
        f"{unit} over time: {amount(mean)} on average, {amount(highest)} at most",
        f'<polygon class="area" points="0,{_y(0):.1f} {line} {_WIDTH},{_y(0):.1f}"/>'
        f'<polyline class="curve" points="{line}"/>'
        f'<line class="mean" x1="0" x2="{_WIDTH}" y1="{_y(mean / highest):.1f}" y2="{_y(mean / highest):.1f}"/>'
        f'<text class="name" x="4" y="14">{escape(unit)}</text>'
        f'<text x="{_WIDTH - 4}" y="14" text-anchor="end">{amount(highest)} at most, {amount(mean)} on average</text>'
        + _gaps(found, _HEIGHT)
        + _times(found, _HEIGHT)
        + _hints(found, values, unit, _HEIGHT),
    )


def stage_chart(found: RunningRates) -> str:
    """What the processes waited for, over the time that the job ran: in each part, the shares of the stages."""
    parts = len(found.rates)
    if not found.stages:
        return ""
    step, bars = _WIDTH / parts, ""
    for part in range(parts):
        whole, below = sum(of_stage[part] for of_stage in found.stages.values()), float(_STRIP_HEIGHT - _BOTTOM)
        for stage in STAGES:
            seconds = found.stages.get(stage, [0.0] * parts)[part]
            if seconds > 0:
                height = (_STRIP_HEIGHT - _BOTTOM - _TOP) * seconds / whole
                below -= height
                bars += (
                    f'<rect class="{stage}" x="{part * step:.1f}" y="{below:.1f}" width="{step:.1f}" '
                    f'height="{height:.1f}"/>'
                )
    names = [stage for stage in STAGES if stage in found.stages]
    legend = "".join(
        f'<rect class="{stage}" x="{100 + 85 * place}" y="5" width="10" height="10"/>'
        f'<text x="{114 + 85 * place}" y="14">{stage}</text>'
        for place, stage in enumerate(names)
    )
    ends = _gaps(found, _STRIP_HEIGHT) + _times(found, _STRIP_HEIGHT)
    title = f"What the job waited for over time: {', '.join(names)}"
    return _svg(title, f'<text class="name" x="4" y="14">waited for</text>{legend}{bars}{ends}', _STRIP_HEIGHT)


def token_chart(bits: Mapping[int, int], title: str) -> str:
    """How many rows have how many tokens, in classes that double."""
    if not bits:
        return ""
    first, last = min(bits), max(bits)
    step, highest = min(_WIDTH / (last - first + 1), _WIDEST_BAR), max(bits.values())
    bars = ""
    for place, n in enumerate(range(first, last + 1)):
        top, middle, count = _y(bits.get(n, 0) / highest), (place + 0.5) * step, bits.get(n, 0)
        bars += (
            f'<rect class="bar" x="{place * step + 1:.1f}" y="{top:.1f}" width="{step - 2:.1f}" '
            f'height="{_y(0) - top:.1f}"><title>{_class(n)}: {count:,} rows</title></rect>'
        )
        if step >= _LABELLED_BAR:
            bars += f'<text x="{middle:.1f}" y="{top - 4:.1f}" text-anchor="middle">{amount(count)}</text>'
        if step >= _LABELLED_BAR or place % 2 == 0:
            label = _class(n) if step == _WIDEST_BAR else amount(1 << n - 1 if n else 0)
            bars += f'<text x="{middle:.1f}" y="{_HEIGHT - 5}" text-anchor="middle">{label}</text>'
    return _svg(title, bars)


def amount(value: float) -> str:
    """A number of three digits or so, as `12.5k`."""
    for size, name in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if value >= size:
            unit = 1e3 if name == "k" else size
            return f"{value / unit:,.{1 if value < 100 * unit else 0}f}".removesuffix(".0") + name
    return f"{value:,.1f}".removesuffix(".0") if value < 100 else f"{value:,.0f}"


def _y(share: float) -> float:
    return _TOP + (_HEIGHT - _TOP - _BOTTOM) * (1 - share)


def _gaps(found: RunningRates, height: float) -> str:
    longest = sorted(found.gaps, key=lambda gap: -gap[1])[:_MARKED_GAPS]
    return "".join(
        f'<line class="gap" x1="{at / found.seconds * _WIDTH:.1f}" x2="{at / found.seconds * _WIDTH:.1f}" y1="{_TOP}" '
        f'y2="{height - _BOTTOM}"><title>left out: {duration(seconds)}</title></line>'
        for at, seconds in longest
    )


def _times(found: RunningRates, height: float) -> str:
    """The times of the day at which a chart begins, and ends, and of some between."""
    ticks = "".join(
        f'<text x="{part * _WIDTH:.1f}" y="{height - 5}" text-anchor="middle">'
        f"{clock(clock_of(found.runs, part * found.seconds)).partition(' ')[2]}</text>"
        for part in _TICKS
    )
    start, stop = (clock(clock_of(found.runs, at)) for at in (0.0, found.seconds))
    same_day = start.partition(" ")[0] == stop.partition(" ")[0]
    return (
        f'<text x="4" y="{height - 5}">{start}</text><text x="{_WIDTH - 4}" y="{height - 5}" text-anchor="end">'
        f"{stop.partition(' ')[2] if same_day else stop}</text>{ticks if same_day else ''}"
    )


def _hints(found: RunningRates, values: Sequence[float], unit: str, height: float) -> str:
    """What a mouse that rests on a part is told of it."""
    step, width = _WIDTH / len(values), found.seconds / len(values)
    return "".join(
        f'<rect class="hint" x="{part * step:.1f}" y="0" width="{step:.1f}" height="{height}">'
        f"<title>{clock(clock_of(found.runs, part * width))}: {amount(value)} {escape(unit)}</title></rect>"
        for part, value in enumerate(values)
    )


def _class(bits: int) -> str:
    return str(bits) if bits < 2 else f"{1 << bits - 1:,}-{(1 << bits) - 1:,}"


def _svg(title: str, content: str, height: int = _HEIGHT) -> str:
    return f'<svg viewBox="0 0 {_WIDTH} {height}" role="img"><title>{escape(title)}</title>{content}</svg>'
