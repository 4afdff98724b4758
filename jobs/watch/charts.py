"""Charts of a report, as SVG inside of its page."""

from collections.abc import Mapping

from run_batch.jobs.watch.running_rates import RunningRates

_WIDTH, _HEIGHT, _TOP, _BOTTOM = 720, 180, 20, 20
_WIDEST_BAR = 120


def rate_chart(found: RunningRates) -> str:
    """Rows per second over the time that the job ran; a dashed line where it did not run for a while."""
    if not found.rates:
        return ""
    highest = max(found.rates) or 1.0
    step = _WIDTH / len(found.rates)
    steps = " ".join(
        f"{place * step + side:.1f},{_y(rate / highest):.1f}"
        for place, rate in enumerate(found.rates)
        for side in (0.0, step)
    )
    gaps = "".join(_gap(at / found.seconds * _WIDTH, seconds) for at, seconds in found.gaps)
    mean = sum(found.rates) / len(found.rates)
    return _svg(
        f"Rows per second while the job ran, {mean:,.1f} on average",
        f'<polyline class="curve" points="{steps}"/>{gaps}'
        f'<text x="4" y="14">{highest:,.1f} rows/s</text>'
        f'<text x="{_WIDTH - 4}" y="{_HEIGHT - 5}" text-anchor="end">{duration(found.seconds)} of running</text>',
    )


def token_chart(bits: Mapping[int, int], title: str = "How many rows have generated how many tokens") -> str:
    """How many rows have how many tokens, in classes that double."""
    if not bits:
        return ""
    first, last = min(bits), max(bits)
    step, highest = min(_WIDTH / (last - first + 1), _WIDEST_BAR), max(bits.values())
    bars = "".join(
        f'<rect class="bar" x="{place * step + 2:.1f}" y="{_y(bits.get(n, 0) / highest):.1f}" width="{step - 4:.1f}" '
        f'height="{_HEIGHT - _BOTTOM - _y(bits.get(n, 0) / highest):.1f}"/>'
        f'<text x="{(place + 0.5) * step:.1f}" y="{_y(bits.get(n, 0) / highest) - 3:.1f}" text-anchor="middle">'
        f'{bits.get(n, 0):,}</text><text x="{(place + 0.5) * step:.1f}" y="{_HEIGHT - 5}" text-anchor="middle">'
        f"{_class(n)}</text>"
        for place, n in enumerate(range(first, last + 1))
    )
    return _svg(title, bars)


def duration(seconds: float) -> str:
    """A duration for people."""
    for size, name in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:,.1f} {name}"
    return f"{seconds:,.0f} s"


def _y(share: float) -> float:
    return _TOP + (_HEIGHT - _TOP - _BOTTOM) * (1 - share)


def _gap(x: float, seconds: float) -> str:
    return (
        f'<line class="gap" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{_HEIGHT - _BOTTOM}">'
        f"<title>did not run for {duration(seconds)}</title></line>"
    )


def _class(bits: int) -> str:
    return str(bits) if bits < 2 else f"{1 << bits - 1:,}-{(1 << bits) - 1:,}"


def _svg(title: str, content: str) -> str:
    return f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img"><title>{title}</title>{content}</svg>'
