"""The sampled rows of a report, with what filters them."""

import json
from collections.abc import Mapping, Sequence
from html import escape

from run_batch.jobs.watch import page
from run_batch.jobs.watch.report_input import InputCells
from run_batch.jobs.watch.report_sample import KINDS, SHOWN, SampledRow

# Bytes of the texts of all rows.
_TEXT_BYTES = 1_600_000
_CELL_BYTES = 4000
_ID_BYTES, _NAME_BYTES = 600, 60
# As page.js sorts.
_ORDERS = {
    "input": "in order of the input",
    "longest": "longest answers first",
    "shortest": "shortest answers first",
    "prompt": "longest prompts first",
}


def gallery(rows: Sequence[SampledRow], inputs: Mapping[int, InputCells]) -> str:
    """The rows, and the controls by which the page's script filters them; nothing without rows."""
    if not rows:
        return ""
    max_bytes = _TEXT_BYTES // len(rows)
    reasons = sorted({_finish(row) for row in rows})
    kinds = [kind for kind in KINDS if any(kind in row.kinds for row in rows)]
    return (
        '<div class="tools"><input id="find" type="search" placeholder="Find in these rows ( / )" '
        'aria-label="Find in these rows">'
        + _choice("where", {"": "anywhere"})  # the script knows the fields that rows have
        + _choice("kind", {"": "all kinds", **{kind: kind for kind in kinds}})
        + _choice("finish", {"": "all finish reasons", **{reason: reason for reason in reasons}})
        + _choice("order", _ORDERS)
        + '</div><p id="count" class="soft" aria-live="polite"></p><div id="rows">'
        + "\n".join(_article(row, inputs.get(row.row, InputCells()), max_bytes) for row in rows)
        + "</div>"
    )


def _choice(name: str, values: Mapping[str, str]) -> str:
    """A menu of values, each with what it is called."""
    options = "".join(
        f'<option value="{page.plain(value)}">{page.plain(shown)}</option>' for value, shown in values.items()
    )
    return f'<select id="{name}" aria-label="{name}">{options}</select>'


def _finish(row: SampledRow) -> str:
    return "error" if row.cells.get("error") else str(row.cells.get("finish_reason") or "none")


def _article(row: SampledRow, found: InputCells, max_bytes: int) -> str:
    cells = row.cells
    shown = {
        "id": cells.get("row_id"),
        "prompt": found.prompt or None,
        "answer": cells.get("text", cells.get("score")),
        "expected": found.expected,
        "error": cells.get("error"),
        "finish reason": None if cells.get("error") else cells.get("finish_reason"),
        "tokens": _tokens(row),
        "time": f"{row.seconds:.2f} s in the engine, waiting included" if row.seconds is not None else None,
        "shown as": ", ".join(row.kinds),
        "images": found.note or None,
        **{f"column {page.plain(name, _NAME_BYTES)}": cell for name, cell in cells.items() if name not in SHOWN},
    }
    cut = _cut({name: str(value) for name, value in shown.items() if value is not None}, max_bytes)
    fields = "".join(
        f"<dt>{name}</dt><dd{' class=bad' if name == 'error' else ''}>{cut[name]}</dd>" for name in shown if name in cut
    )
    images = "".join(page.image(jpeg, f"image {number}") for number, jpeg in enumerate(found.images, 1))
    counts = [cells.get(name) or 0 for name in ("generated_tokens", "prompt_tokens")]
    return (
        f'<article class="row" data-kinds="{" ".join(row.kinds)}" data-finish="{page.plain(_finish(row))}" '
        f'data-tokens="{counts[0]}" data-prompt="{counts[1]}"{_exact_id(cells.get("row_id"))}>'
        f'<div class="images">{images}</div><dl>{fields}</dl></article>'
    )


def _exact_id(row_id: object) -> str:
    """The id as the script copies it, in ASCII, whatever is in it; nothing for one that nobody would paste."""
    written = json.dumps(row_id)
    return f' data-id="{escape(written)}"' if isinstance(row_id, str) and len(written) <= _ID_BYTES else ""


def _cut(texts: Mapping[str, str], max_bytes: int) -> dict[str, str]:
    """Texts as cells of `max_bytes` bytes in all: what short ones leave, long ones have."""
    cells, left = {}, max_bytes
    for place, name in enumerate(sorted(texts, key=lambda name: len(texts[name]))):
        cells[name] = page.cell(texts[name], min(_CELL_BYTES, left // (len(texts) - place)))
        left -= min(left, len(cells[name].encode()))
    return cells


def _tokens(row: SampledRow) -> str | None:
    names = {"prompt_tokens": "in the prompt", "generated_tokens": "generated"}
    counts = [f"{row.cells[name]:,} {what}" for name, what in names.items() if row.cells.get(name) is not None]
    return ", ".join(counts) or None
