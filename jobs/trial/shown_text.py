"""Text of data and models as a terminal may show it: nothing in it moves the cursor, hides or reorders other text."""

import unicodedata

# Of a text that is cut: what is shown of its beginning and of its end.
_HEAD_CHARACTERS, _HEAD_LINES = 1200, 25
_TAIL_CHARACTERS, _TAIL_LINES = 400, 8
_NAMED = {"\t": "\\t", "\r": "\\r"}


def escaped(text: str) -> str:
    """Text on one line, with control, format (bidirectional, zero-width), unassigned and private characters escaped."""
    return "".join(c if c.isprintable() or unicodedata.category(c) == "Zs" else _escape(c) for c in text)


def _escape(character: str) -> str:
    code = ord(character)
    if character in _NAMED:
        return _NAMED[character]
    if character == "\n":
        return "\\n"
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def block(text: str, full: bool) -> list[str]:
    """Lines that show a text: each begins with `| `, so that none passes for a line of run-batch's own.

    Args:
        full: show all of it; else the beginning and the end of a long one.
    """
    lines = [f"| {escaped(line)}" for line in text.split("\n")]
    if full or (len(text) <= _HEAD_CHARACTERS + _TAIL_CHARACTERS and len(lines) <= _HEAD_LINES + _TAIL_LINES):
        return lines
    head = "\n".join(text[:_HEAD_CHARACTERS].split("\n")[:_HEAD_LINES])
    tail = "\n".join(text[-_TAIL_CHARACTERS:].split("\n")[-_TAIL_LINES:])
    note = f"... {len(text) - len(head) - len(tail):,} of {len(text):,} characters left out; --full shows them ..."
    return [*block(head, full=True), note, *block(tail, full=True)]
