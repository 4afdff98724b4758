"""The HTML of a report: one file that loads nothing, and in which data is never markup or code.

Text of data is escaped, and isolated from the text around it: what would reorder or hide other text is shown as its
code. The page's Content-Security-Policy allows its own style and its own script, by their hashes, and pictures inside
of the page.
"""

import base64
import hashlib
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from html import escape
from pathlib import Path

# C0 and C1 controls but tab and newline, marks and overrides of direction, other line ends, halves of surrogate pairs,
# what is no character, and tags, which are not seen.
_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ufffe\uffff\ud800-\udfff"
    "\U000e0000-\U000e007f]"
)
_CUT = re.compile(r"(&[^;]*|\\[xuU]?[0-9a-f]*)$")

# Characters of a short text; columns from which on a table is a wide one; rows that one has at most outside of a box.
_SHORT, _MANY_COLUMNS, _MANY_ROWS = 20, 4, 30

# Names of columns of numbers.
_NUMBERS = {
    "rows",
    "part",
    "of that time",
    "finished rows for",
    "rows/s",
    "generated tokens/s",
    "prompt tokens/s",
    "images",
}

# How the file begins.
DOCTYPE = "<!doctype html>"

_HERE = Path(__file__).parent
STYLE = (_HERE / "page.css").read_text()
SCRIPT = (_HERE / "page.js").read_text()


def plain(text: str, max_bytes: int = 2000) -> str:
    """Text of data as HTML without any markup, of `max_bytes` bytes at most and an ellipsis where it is cut."""
    # Every character takes a byte at least.
    cut = text[:max_bytes]
    shown = escape(_UNSAFE.sub(_code, cut))
    encoded = shown.encode()
    if len(encoded) <= max_bytes:
        return shown if len(cut) == len(text) else f"{shown} …"
    # Not inside of a character, of a reference to one, or of its code.
    return f"{_CUT.sub('', encoded[:max_bytes].decode(errors='ignore'))} …"


def _code(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def cell(text: str, max_bytes: int = 2000) -> str:
    """Text of data as an element that nothing around it is reordered by; a short one is on one line where it can be."""
    kind = ' class="short"' if len(text) <= _SHORT and "\n" not in text else ""
    return f'<pre dir="auto"{kind}>{plain(text, max_bytes)}</pre>'


def section(title: str, *content: str) -> str:
    """A part of the page; nothing where it has no content."""
    shown = "\n".join(filter(None, content))
    return f'<section id="{anchor(title)}"><h2>{plain(title)}</h2>{shown}</section>' if shown else ""


def block(title: str, *content: str, is_wide: bool = False) -> str:
    """A part of a section with a title of its own, which stays together; nothing where it has no content.

    Args:
        is_wide: it takes the width of the page, as tables of many columns do.
    """
    shown = "".join(content)
    kind = "block wide" if is_wide else "block"
    return f'<div class="{kind}"><h3>{plain(title)}</h3>{shown}</div>' if shown else ""


def group(name: str, *content: str) -> str:
    """A part of a section that stays together.

    Args:
        name: by which page.css and page.js find it.
    """
    return f'<div id="{name}">{"".join(content)}</div>'


def columns(blocks: Sequence[str]) -> str:
    """Blocks of a section beside one another, in as many columns as the window has room for; nothing without blocks."""
    shown = "".join(blocks)
    return f'<div class="columns">{shown}</div>' if shown else ""


def anchor(title: str) -> str:
    """The name by which links lead to a section."""
    return plain(title.lower().replace(" ", "-"))


def navigation(titles: Iterable[str]) -> str:
    """Links to sections of the page."""
    links = "".join(f'<a href="#{anchor(title)}">{plain(title)}</a>' for title in titles)
    return f'<nav aria-label="parts of this page">{links}</nav>'


def tiles(shown: Sequence[tuple[str, str, str]], bad: Collection[str] = ()) -> str:
    """A few numbers that are seen first: name, value, and what is to be known of it.

    Args:
        bad: names of those that tell of a fault.
    """
    found = "".join(
        f'<div data-tile="{plain(name)}"><dt>{plain(name)}</dt>'
        f"<dd>{cell(value)}{note(more, 'bad' if name in bad else 'soft')}</dd></div>"
        for name, value, more in shown
    )
    return f'<dl class="tiles">{found}</dl>'


def note(text: str, kind: str = "soft") -> str:
    """A line of text."""
    return f'<p class="{kind}"><bdi>{plain(text)}</bdi></p>' if text else ""


def command(text: str) -> str:
    """A command, which the page's script lets people copy."""
    return f'<div class="command"><pre>{plain(text)}</pre></div>'


def details(summary: str, content: str) -> str:
    """What is seen once it is opened; nothing without content."""
    return f"<details><summary>{plain(summary)}</summary>{content}</details>" if content else ""


def table(
    rows: Sequence[Sequence[str]], names: Sequence[str] = (), marks: Mapping[tuple[int, int], str] | None = None
) -> str:
    """A table of texts; nothing without rows. One of many columns or rows can be moved in a box of its own.

    Args:
        marks: classes of cells, by row and column.
    """
    if not rows:
        return ""
    head = "".join(f'<th scope="col"{_side(name)}>{plain(name)}</th>' for name in names)
    body = "".join(
        "<tr>"
        + "".join(
            _cell(text, (marks or {}).get((y, x), ""), names[x] if x < len(names) else "") for x, text in enumerate(row)
        )
        + "</tr>"
        for y, row in enumerate(rows)
    )
    shown = f"<table>{f'<thead><tr>{head}</tr></thead>' if head else ''}<tbody>{body}</tbody></table>"
    if len(names) < _MANY_COLUMNS and len(rows) <= _MANY_ROWS:
        return shown
    label = plain(f"table of {', '.join(names) or rows[0][0]}", 200)
    kind = "scroll" if len(names) >= _MANY_COLUMNS else "long"
    return f'<div class="{kind}" tabindex="0" role="region" aria-label="{label}">{shown}</div>'


def _side(name: str) -> str:
    """The attribute of cells that stand on the right: those of columns of numbers."""
    return " data-number" if name in _NUMBERS else ""


def _cell(text: str, mark: str, name: str) -> str:
    return f"<td{f' class={mark}' if mark else ''}{_side(name)}>{cell(text) if text else ''}</td>"


def image(jpeg: bytes, name: str) -> str:
    """A picture, with the name that screen readers say."""
    return f'<img alt="{plain(name)}" src="data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}">'


def page(title: str, parts: Sequence[str]) -> str:
    """The whole file.

    Args:
        parts: what stands before the sections, and these.
    """
    policy = (
        f"default-src 'none'; script-src '{_hash(SCRIPT)}'; style-src '{_hash(STYLE)}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    return (
        f'{DOCTYPE}\n<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{plain(title)}</title><style>{STYLE}</style></head>\n<body><main>"
        + "\n".join(filter(None, parts))
        + f"</main><script>{SCRIPT}</script></body></html>\n"
    )


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
