"""docs/errors.md is where the kinds of row errors are declared: the code uses these and no others."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import bad_rows
import pytest

from run_batch.jobs.runner.place_failures import PLACE_KINDS

ROOT = Path(__file__).parents[2]
# Which argument is the kind.
RAISED_BY = {"RowError": 0, "MediaError": 0, "RowFailure": 1, "RowFailure.of": 1}


def documented() -> list[str]:
    return re.findall(r"^\| `(\w+)` \| [^|]+ \| [^|]+ \|$", (ROOT / "docs" / "errors.md").read_text(), re.MULTILINE)


def kinds_in(source: str) -> Iterator[str]:
    """The kinds that a file's code gives rows, as far as they stand in it."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in RAISED_BY:
            position = RAISED_BY[ast.unparse(node.func)]
            argument = node.args[position] if len(node.args) > position else None
            if isinstance(argument, ast.Constant):
                yield str(argument.value)


def kinds_in_code() -> set[str]:
    files = [file for room in ("io", "model", "jobs") for file in (ROOT / room).rglob("*.py")]
    return {kind for file in files for kind in kinds_in(file.read_text())}


def test_every_kind_of_error_is_documented_and_no_other() -> None:
    table = documented()
    assert len(table) == len(set(table))
    assert kinds_in_code() == set(table)


def test_the_kinds_that_a_machine_can_cause_are_documented_as_such() -> None:
    text = (ROOT / "docs" / "errors.md").read_text()
    named = re.search(r"^((?:`\w+`(?:, | and )?)+) may be the fault of the machine", text, re.MULTILINE)
    assert named is not None and set(re.findall(r"\w+_\w+", named[1])) == PLACE_KINDS <= set(documented())


def test_every_kind_that_the_tests_expect_is_documented() -> None:
    import random

    made = {kind for make in bad_rows.CASES.values() for kind in make(random.Random(0)).kinds}
    assert made <= set(documented())


@pytest.mark.parametrize(
    ("source", "kinds"),
    [
        ('raise RowError("a", "b: c")', ["a"]),
        ('return MediaError("a", f"{b}")', ["a"]),
        ('RowFailure(3, "a", "b: c")', ["a"]),
        ('RowFailure.of(3, "a", f"{b}")', ["a"]),
        ("RowFailure.of(3, error.kind, error.message)", []),
    ],
)
def test_every_way_to_write_a_kind_is_seen(source: str, kinds: list[str]) -> None:
    assert list(kinds_in(source)) == kinds
