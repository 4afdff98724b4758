"""Draws benchmark results as an SVG plot: for each workload, a bar of steady rows/s for each system."""

from pathlib import Path
from xml.sax.saxutils import escape

from systems import LABELS, PRODUCT

_WIDTH, _LABEL, _BAR, _GAP = 760, 230, 18, 6
_STYLE = (
    "text{font:13px system-ui,sans-serif;fill:#57606a}.title{font-weight:600}"
    ".own{fill:#1a7f37}.peer{fill:#8c959f}@media(prefers-color-scheme:dark){text{fill:#adbac7}}"
)


def write_plot(tables: list[dict[str, object]], path: Path) -> None:
    """Write the plot of some workloads, each a value of `.bench/results.json`."""
    body: list[str] = []
    top = 20
    for table in tables:
        systems: dict[str, dict[str, float]] = table["systems"]  # type: ignore[assignment]
        longest = max(found["steady_rows_per_second"] for found in systems.values())
        body.append(f'<text class="title" x="0" y="{top}">{escape(str(table["workload"]))}: rows/s once started</text>')
        top += 12
        for name, found in systems.items():
            rate = found["steady_rows_per_second"]
            width = max(1, rate / longest * (_WIDTH - _LABEL - 60))
            kind = "own" if name == PRODUCT else "peer"
            body.append(f'<text x="{_LABEL - 8}" y="{top + 14}" text-anchor="end">{escape(LABELS[name])}</text>')
            body.append(f'<rect class="{kind}" x="{_LABEL}" y="{top}" width="{width:.0f}" height="{_BAR}" rx="2"/>')
            body.append(f'<text x="{_LABEL + width + 6:.0f}" y="{top + 14}">{rate:.0f}</text>')
            top += _BAR + _GAP
        top += 26
    path.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {top}" width="{_WIDTH}" height="{top}">'
        f"<style>{_STYLE}</style>{''.join(body)}</svg>\n"
    )
