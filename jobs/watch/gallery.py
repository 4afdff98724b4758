"""The sampled rows of a report, with what filters them."""

import json
import math
import shlex
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from run_batch.jobs.watch import page
from run_batch.jobs.watch.report_input import InputCells
from run_batch.jobs.watch.report_sample import KINDS, SHOWN, SampledRow

# Bytes of the texts of all rows.
_TEXT_BYTES = 1_600_000
_CELL_BYTES = 4000
_ID_BYTES, _NAME_BYTES, _COMMAND_CHARACTERS = 600, 60, 200
# As page.js sorts: by an attribute of rows, the greatest or the least first.
_ORDERS = {
    "tokens": ("longest answers first", "shortest answers first"),
    "prompt": ("longest prompts first", ""),
    "seconds": ("slowest first", ""),
    "pixels": ("largest images first", "smallest images first"),
    "logprob": ("most certain answers first", "least certain answers first"),
}


def gallery(rows: Sequence[SampledRow], inputs: Mapping[int, InputCells], job_rows: int) -> str:
    """The rows, and the controls by which the page's script filters them; nothing without rows.

    Args:
        job_rows: of the whole job.
    """
    if not rows:
        return ""
    max_bytes = _TEXT_BYTES // len(rows)
    reasons = sorted({_finish(row) for row in rows})
    kinds = [kind for kind in KINDS if any(kind in row.kinds for row in rows)]
    shown = [_article(row, inputs.get(row.row, InputCells()), max_bytes) for row in rows]
    return (
        '<div class="tools"><input id="find" type="search" placeholder="Find in these rows ( / )" '
        'aria-label="Find in these rows">'
        + _choice("where", {"": "anywhere"})  # the script knows the fields that rows have
        + _choice("kind", {"": "all kinds", **{kind: kind for kind in kinds}})
        + _choice("finish", {"": "all finish reasons", **{reason: reason for reason in reasons}})
        + _choice("order", _orders(shown))
        + '</div><p class="soft"><span id="count" aria-live="polite"></span> <span id="only"></span></p>'
        + f'<div id="gallery" data-rows="{job_rows}">'
        + "\n".join(shown)
        + '</div><p id="more"></p>'
    )


def _orders(articles: Sequence[str]) -> dict[str, str]:
    """The orders for which rows have what they are sorted by."""
    orders = {"input": "in order of the input"}
    for name, (greatest, least) in _ORDERS.items():
        if any(f' data-{name}="' in article.partition(">")[0] for article in articles):
            orders |= {name: greatest, **({f"{name}-least": least} if least else {})}
    return orders


def _choice(name: str, values: Mapping[str, str]) -> str:
    """A menu of values, each with what it is called."""
    options = "".join(
        f'<option value="{page.plain(value)}">{page.plain(shown)}</option>' for value, shown in values.items()
    )
    return f'<select id="{name}" aria-label="{name}">{options}</select>'


def _finish(row: SampledRow) -> str:
    """How a row ended: its finish reason, or its kind of error."""
    error = row.cells.get("error")
    if error:
        return f"error: {error.partition(': ')[0][:_NAME_BYTES]}"
    return str(row.cells.get("finish_reason") or "none")


def _article(row: SampledRow, found: InputCells, max_bytes: int) -> str:
    texts, numbers = _texts(row, found), _numbers(row, found)
    cut = _cut({name: str(value) for name, value in {**texts, **numbers}.items() if value is not None}, max_bytes)
    name = page.plain(f"row {row.cells.get('row_id')}", _NAME_BYTES)
    images = "".join(page.image(jpeg, f"image {number}") for number, jpeg in found.images)
    return (
        f'<article class="row" aria-label="{name}" data-kinds="{" ".join(row.kinds)}" '
        f'data-finish="{page.plain(_finish(row))}"'
        f"{' data-mismatch' if row.cells.get('matches_expected') is False else ''}"
        f"{_sorted_by(row, found)}{_exact_id(row)}>"
        f'{f"""<div class="images">{images}</div>""" if images else ""}<dl>{_fields(texts, cut)}</dl>'
        f'<dl class="about">{_fields(numbers, cut)}</dl></article>'
    )


def _texts(row: SampledRow, found: InputCells) -> dict[str, Any]:
    cells = row.cells
    return {
        "id": cells.get("row_id"),
        "prompt": found.prompt or None,
        "answer": cells.get("text", cells.get("score")),
        "expected": found.expected,
        "error": cells.get("error"),
        **{
            f"column {page.plain(name, _NAME_BYTES)}": cell
            for name, cell in cells.items()
            if name not in SHOWN and cell not in (cells.get("row_id"), found.prompt, found.expected)  # shown already
        },
    }


def _numbers(row: SampledRow, found: InputCells) -> dict[str, Any]:
    cells, sizes = row.cells, [f"{width} x {height}" for width, height in found.sizes]
    return {
        "finish reason": None if cells.get("error") else cells.get("finish_reason"),
        "tokens": _tokens(row),
        "logprob": _logprob(row),
        "time": f"{row.seconds:.2f} s in the engine, waiting included" if row.seconds is not None else None,
        "images": "; ".join(filter(None, [", ".join(sizes), found.note])) or None,
        "shown as": ", ".join(row.kinds),
    }


def _sorted_by(row: SampledRow, found: InputCells) -> str:
    """What a row is sorted by, as attributes."""
    values = {
        "tokens": row.cells.get("generated_tokens"),
        "prompt": row.cells.get("prompt_tokens"),
        "seconds": row.seconds,
        "pixels": max((width * height for width, height in found.sizes), default=None),
        "logprob": row.logprob.mean if row.logprob is not None else None,
    }
    known = {name: value for name, value in values.items() if value is not None and math.isfinite(value)}
    return "".join(f' data-{name}="{value:.12g}"' for name, value in known.items())


def _fields(values: Mapping[str, Any], cut: Mapping[str, str]) -> str:
    """Names and cells of those values that there are."""
    return "".join(
        f"<div><dt>{name}</dt><dd{' class=bad' if name == 'error' else ''}>{cut[name]}</dd></div>"
        for name in values
        if name in cut
    )


def _exact_id(row: SampledRow) -> str:
    """The id as the script copies it, in ASCII, whatever is in it; nothing for one that nobody would paste. And of a
    row that has failed, the command that tries it again.
    """
    row_id = row.cells.get("row_id")
    written = json.dumps(row_id)
    if not isinstance(row_id, str) or len(written) > _ID_BYTES:
        return ""
    again = f' data-try="{page.plain(try_command(row_id))}"' if row.cells.get("error") else ""
    return f' data-id="{escape(written)}"{again}'


def try_command(row_id: str) -> str:
    """The command that tries a row again, for a shell. It has no id that is long, or that does something to a terminal
    as it is pasted.
    """
    known = row_id.isprintable() and 0 < len(row_id) <= _COMMAND_CHARACTERS
    given = shlex.quote(row_id) if known else "ID"
    return f"run-batch try --config job.toml --row{'=' if given.startswith('-') else ' '}{given}"


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


def _logprob(row: SampledRow) -> str | None:
    """The log probability of an answer, for people."""
    found = row.logprob
    if found is None:
        return None
    return f"{found.mean:.3f} a token, {found.total:.3f} in all, of {found.tokens:,} tokens"
