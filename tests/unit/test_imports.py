"""The direction of imports: jobs may use model and io, which know neither jobs nor each other; inside each of them,
rooms are in an order, and a room imports only from itself and from rooms before it."""

import ast
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MAY_USE = {"jobs": {"jobs", "model", "io"}, "model": {"model"}, "io": {"io"}}
# Sub-packages and single modules, each after all that it may import from.
ROOMS: Mapping[str, Sequence[str]] = {
    "io": (
        "secrets",
        "transient",
        "object_stores",
        "files",
        "arrow_types",
        "features",
        "inputs",
        "media",
        "outputs",
        "coordination",
    ),
    "model": (
        *("declaration", "checkpoint", "images", "prompts", "mappers", "rendering"),
        *("registry", "failure_reports", "engine_phases", "families", "plugin"),
    ),
    "jobs": (
        *("job", "machine", "results", "watch", "mapping", "engine", "runner"),
        *(
            "check",
            "trial",
            "ray",
            "slurm",
            "keys",
            "init",
            "new_model",
            "command",
            "command_group",
            "engines",
            "cli_without_job",
            "cli_on_results",
            "cli",
            "start",
            "python_call",
        ),
    ),
}


def modules_used(source: str) -> set[str]:
    """What a module imports from `run_batch`, wherever in it the import stands: `jobs.job.plan`; `.` if relative."""
    names = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names += [f"{node.module}.{alias.name}" for alias in node.names] if node.level == 0 else ["run_batch.."]
    return {name.removeprefix("run_batch.") for name in names if name.startswith("run_batch.")}


def files(top: str) -> list[Path]:
    found = sorted((ROOT / top).rglob("*.py"))
    assert found, f"{top}/ has no code"
    return found


def module_name(file: Path) -> str:
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports_at_start(source: str) -> set[str]:
    """What a module imports when it is imported itself: not in functions, not for type checkers alone."""
    names: set[str] = set()
    for node in ast.parse(source).body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            names |= modules_used(ast.unparse(node))
    return names


@pytest.mark.parametrize("top", MAY_USE)
def test_a_top_folder_imports_only_what_it_may_know(top: str) -> None:
    wrong = {
        file.name: {name for name in modules_used(file.read_text()) if name.split(".")[0] not in MAY_USE[top]}
        for file in files(top)
    }
    assert not any(wrong.values()), "imports that go the wrong way ('.' is a relative one)"


@pytest.mark.parametrize("top", ROOMS)
def test_a_room_imports_only_from_itself_and_from_rooms_before_it(top: str) -> None:
    order = {room: position for position, room in enumerate(ROOMS[top])}
    wrong = []
    for file in files(top):
        parts = module_name(file).split(".")
        if len(parts) == 1:
            continue  # the top folder's own __init__
        assert parts[1] in order, f"{file.relative_to(ROOT)} is in no room of ROOMS"
        for name in modules_used(file.read_text()):
            used = name.split(".")
            if used[0] == top and len(used) > 1 and used[1] in order and order[used[1]] > order[parts[1]]:
                wrong.append(f"{file.relative_to(ROOT)} imports {name}")
    assert not wrong


def test_the_map_for_contributors_lists_every_room_in_this_order() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text().partition("## Rooms")[2].partition("## Where")[0]
    cells = re.findall(r"^\| (`[^|]*`) \|", text, re.MULTILINE)
    listed = [name for cell in cells for name in re.findall(r"`([\w/.]+)`", cell)]
    assert [name.removesuffix(".py") for name in listed] == [f"{top}/{room}" for top in ROOMS for room in ROOMS[top]]


@pytest.mark.parametrize("top", MAY_USE)
def test_no_file_imports_itself_by_way_of_others(top: str) -> None:
    names = {module_name(file): file for file in files(top)}
    uses = {name: set(_known(imports_at_start(file.read_text()), names)) for name, file in names.items()}
    while leaves := [name for name, used in uses.items() if not used & uses.keys()]:
        for name in leaves:
            del uses[name]
    assert not uses, "these files, or some of them, import one another in a circle"


def _known(used: set[str], names: Mapping[str, Path]) -> Iterator[str]:
    """Of what is imported, the modules: `jobs.job.plan.Plan` is a name in `jobs.job.plan`."""
    for name in used:
        parent = name.rpartition(".")[0]
        if name in names or parent in names:
            yield name if name in names else parent


@pytest.mark.parametrize(
    ("source", "used"),
    [
        ("from run_batch.jobs.job.plan import Plan", {"jobs.job.plan.Plan"}),
        ("import run_batch.jobs.job.plan as p", {"jobs.job.plan"}),
        ("from run_batch import io", {"io"}),
        ("def f():\n    from run_batch.model import registry", {"model.registry"}),
        ("from ..jobs import plan", {"."}),
        ("import io, jobs_like\nfrom run_batch_tools import x", set()),
    ],
)
def test_every_way_to_write_an_import_is_seen(source: str, used: set[str]) -> None:
    assert modules_used(source) == used
