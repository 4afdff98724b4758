"""The HTML of a report: one file that loads nothing, and in which data is never markup or code.

Text of data is escaped, and isolated from the text around it: what would reorder or hide other text is shown as its
code. The page's Content-Security-Policy allows its own style and its own script, by their hashes, and pictures inside
of the page.
"""

import base64
import hashlib
import re
from collections.abc import Sequence
from html import escape

# C0 and C1 controls but tab and newline, marks and overrides of direction, other line ends, halves of surrogate pairs,
# what is no character, and tags, which are not seen.
_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ufffe\uffff\ud800-\udfff"
    "\U000e0000-\U000e007f]"
)
_CUT = re.compile(r"(&[^;]*|\\[xuU]?[0-9a-f]*)$")

# How the file begins.
DOCTYPE = "<!doctype html>"

STYLE = """
:root { color-scheme: light dark; --text: #1c1e21; --soft: #5b616b; --back: #fff; --card: #f6f7f9; --line: #d9dce1;
  --mark: #0b62c4; --bad: #b3261e }
@media (prefers-color-scheme: dark) { :root { --text: #e6e8eb; --soft: #a3a9b3; --back: #15171a; --card: #1e2125;
  --line: #363b42; --mark: #6cb0ff; --bad: #ff8a80 } }
* { box-sizing: border-box }
body { font: 15px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 80rem; padding: 1rem; color: var(--text);
  background: var(--back) }
h1 { font-size: 1.4rem; margin: 0 } h2 { font-size: 1.15rem; margin: 2rem 0 .5rem }
p { margin: .3rem 0 } .soft { color: var(--soft) } .bad { color: var(--bad) }
table { border-collapse: collapse; width: 100%; table-layout: fixed }
td, th { text-align: left; vertical-align: top; padding: .25rem .5rem; border-bottom: 1px solid var(--line);
  overflow-wrap: anywhere }
bdi, pre { unicode-bidi: isolate; overflow-wrap: anywhere; white-space: pre-wrap }
pre { font: 13px/1.4 ui-monospace, monospace; margin: 0; max-height: 20rem; overflow: auto }
svg { width: 100%; height: auto; background: var(--card); border-radius: 4px; font: 12px system-ui, sans-serif }
svg text { fill: var(--soft) } .curve { fill: none; stroke: var(--mark); stroke-width: 1.5 } .bar { fill: var(--mark) }
.gap { stroke: var(--bad); stroke-dasharray: 4 3 }
.tools { position: sticky; top: 0; display: flex; flex-wrap: wrap; gap: .5rem; padding: .5rem 0;
  background: var(--back) }
input, select { font: inherit; padding: .3rem .5rem; color: inherit; background: var(--card);
  border: 1px solid var(--line); border-radius: 4px; max-width: 100% } input { flex: 1 1 12rem }
:focus-visible { outline: 2px solid var(--mark); outline-offset: 2px }
.row { display: grid; grid-template-columns: minmax(0, 9rem) minmax(0, 1fr); gap: .25rem 1rem; padding: .75rem;
  margin: .5rem 0; background: var(--card); border-radius: 6px } .row[hidden] { display: none }
.images { display: flex; flex-wrap: wrap; gap: .25rem; align-content: start } .images img { max-width: 100% }
dl { margin: 0; display: grid; grid-template-columns: 6.5rem minmax(0, 1fr); gap: .15rem .5rem } dd { margin: 0 }
dt { color: var(--soft) }
@media (max-width: 40rem) { .row, dl { grid-template-columns: minmax(0, 1fr) } }
"""

SCRIPT = """
const rows = [...document.querySelectorAll(".row")].map(row => [row, row.textContent.toLowerCase()]);
const find = document.getElementById("find"), kind = document.getElementById("kind");
const finish = document.getElementById("finish"), count = document.getElementById("count");
function filter() {
  const words = find.value.toLowerCase();
  let shown = 0;
  for (const [row, text] of rows) {
    const fits = text.includes(words) && (!kind.value || row.dataset.kinds.split(" ").includes(kind.value))
      && (!finish.value || row.dataset.finish === finish.value);
    row.hidden = !fits;
    shown += fits;
  }
  count.textContent = shown + " of " + rows.length + " rows shown";
}
for (const control of [find, kind, finish]) control?.addEventListener("input", filter);
if (count) filter();
"""


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
    """Text of data as an element that nothing around it is reordered by."""
    return f'<pre dir="auto">{plain(text, max_bytes)}</pre>'


def section(title: str, *content: str) -> str:
    """A part of the page; nothing where it has no content."""
    shown = "\n".join(filter(None, content))
    return f"<section><h2>{plain(title)}</h2>{shown}</section>" if shown else ""


def note(text: str, kind: str = "soft") -> str:
    """A line of text."""
    return f'<p class="{kind}"><bdi>{plain(text)}</bdi></p>' if text else ""


def table(rows: Sequence[Sequence[str]], names: Sequence[str] = ()) -> str:
    """A table of texts; nothing without rows."""
    if not rows:
        return ""
    head = "".join(f'<th scope="col">{plain(name)}</th>' for name in names)
    body = "".join(f"<tr>{''.join(f'<td>{cell(text)}</td>' for text in row)}</tr>" for row in rows)
    return f"<table>{f'<thead><tr>{head}</tr></thead>' if head else ''}<tbody>{body}</tbody></table>"


def image(jpeg: bytes) -> str:
    """A picture."""
    return f'<img alt="" src="data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}">'


def page(title: str, parts: Sequence[str]) -> str:
    """The whole file."""
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
