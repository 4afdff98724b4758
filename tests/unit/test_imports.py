"""The direction of imports: jobs may use model and io; model and io know neither jobs nor each other."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MAY_USE = {"jobs": {"jobs", "model", "io"}, "model": {"model"}, "io": {"io"}}


def rooms_used(source: str) -> set[str]:
    """The rooms that a module imports from, wherever in it the import stands; '.' for a relative import."""
    names = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            module = node.module if node.level == 0 else "run_batch."
            names += [f"{module}.{alias.name}" for alias in node.names]
    return {name.split(".")[1] or "." for name in names if name.startswith("run_batch.")}


@pytest.mark.parametrize("room", MAY_USE)
def test_a_room_imports_only_what_it_may_know(room: str) -> None:
    files = sorted((ROOT / room).rglob("*.py"))
    assert files, f"{room}/ has no code"
    wrong = {file.name: rooms_used(file.read_text()) - MAY_USE[room] for file in files}
    assert not any(wrong.values()), "imports that go the wrong way ('.' is a relative one)"


@pytest.mark.parametrize(
    ("source", "used"),
    [
        ("from run_batch.jobs.job.plan import Plan", {"jobs"}),
        ("import run_batch.jobs.job.plan as p", {"jobs"}),
        ("from run_batch import io", {"io"}),
        ("def f():\n    from run_batch.model import registry", {"model"}),
        ("from ..jobs import plan", {"."}),
        ("import io, jobs_like\nfrom run_batch_tools import x", set()),
    ],
)
def test_every_way_to_write_an_import_is_seen(source: str, used: set[str]) -> None:
    assert rooms_used(source) == used
