"""What the packages import is declared in pyproject.toml, so that an install without vLLM's extras has it."""

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

ROOT = Path(__file__).parents[2]


def imported_packages(source: str) -> set[str]:
    """Top-level packages that a module imports, wherever in it the import stands."""
    names = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.append(str(node.module))
    return {name.split(".")[0] for name in names}


def normal(name: str) -> str:
    """The name of a distribution as PyPI compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def declared_distributions() -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert all(">=" in requirement for requirement in project["dependencies"]), "every dependency has a lower bound"
    return {normal(re.split(r"[^\w.-]", requirement)[0]) for requirement in project["dependencies"]}


def test_every_package_that_is_imported_is_a_declared_dependency() -> None:
    files = [file for room in ("io", "model", "jobs") for file in (ROOT / room).rglob("*.py")]
    imported = set().union(*(imported_packages(file.read_text()) for file in files))
    # vLLM is an extra: which of its two builds is right, the machine decides.
    beside = {file.stem for file in (ROOT / "jobs" / "new_model" / "skeleton").glob("*.py")}
    foreign = imported - set(sys.stdlib_module_names) - {"run_batch", "vllm"} - beside
    assert {"numpy", "cv2"} <= foreign, "imports are not found"
    distributions, declared = packages_distributions(), declared_distributions()
    undeclared = {name for name in foreign if not declared & set(map(normal, distributions.get(name, [])))}
    assert not undeclared, "name their distributions in pyproject.toml"


def test_every_declared_dependency_is_pinned_for_make_setup() -> None:
    lock = (ROOT / "scripts" / "cpu-lock.txt").read_text()
    pinned = {
        normal(line.partition("==")[0]) for line in lock.splitlines() if "==" in line and not line.startswith("#")
    }
    assert declared_distributions() <= pinned
