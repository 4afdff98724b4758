"""Text of data and models on a terminal."""

import pytest

from run_batch.jobs.trial.shown_text import block, escaped


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, é 日本 \U0001f600 ß", "plain, é 日本 \U0001f600 ß"),
        ("no-break\xa0and\u3000wide spaces", "no-break\xa0and\u3000wide spaces"),
        ("\x1b]0;title\x07\x9b2J\x7f", "\\x1b]0;title\\x07\\x9b2J\\x7f"),
        ("a\tb\rc\nd\0", "a\\tb\\rc\\nd\\x00"),
        ("\u202eright\u2066\u200b\ufeff\u2028", "\\u202eright\\u2066\\u200b\\ufeff\\u2028"),
        ("\ud800\ue000\U000e0041", "\\ud800\\ue000\\U000e0041"),
    ],
)
def test_what_a_terminal_obeys_or_hides_is_escaped(text: str, shown: str) -> None:
    assert escaped(text) == shown


def test_each_line_of_a_text_is_marked() -> None:
    assert block("one\n\n  two\r\n", full=False) == ["| one", "| ", "|   two\\r", "| "]
    assert block("", full=False) == ["| "]


@pytest.mark.parametrize("text", ["word " * 1000, "\n" * 1000, "ab\n" * 500, "x" * 1601, ("y" * 1000 + "\n") * 9])
def test_of_a_long_text_beginning_and_end_are_shown_and_how_much_is_not(text: str) -> None:
    lines = block(text, full=False)
    (note,) = [line for line in lines if not line.startswith("| ")]
    at = lines.index(note)
    head, tail = ("\n".join(line[2:] for line in part) for part in (lines[:at], lines[at + 1 :]))
    assert text.startswith(head) and text.endswith(tail) and len(lines) < 40 and len(head) + len(tail) <= 1600
    assert f"{len(text) - len(head) - len(tail):,} of {len(text):,} characters left out" in note
    assert len(block(text, full=True)) == text.count("\n") + 1


def test_a_text_that_is_not_long_is_shown_whole() -> None:
    for text in ("x" * 1600, "\n" * 32):
        assert all(line.startswith("| ") for line in block(text, full=False))
