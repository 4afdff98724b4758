"""Hides torchvision from every process that has this folder in PYTHONPATH, as if it were not installed."""

from importlib.machinery import PathFinder
from typing import Any

_find_spec = PathFinder.find_spec


def _find_others(fullname: str, path: Any = None, target: Any = None) -> Any:
    return None if fullname == "torchvision" else _find_spec(fullname, path, target)


PathFinder.find_spec = _find_others  # type: ignore[method-assign,assignment]
