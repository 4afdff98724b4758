"""The files of a local folder or glob, each once, symbolic links followed.

Every file has a path below the folder that was named, and a real path, which tells whether it has been reached before.
"""

import fnmatch
import heapq
import os
import re
from collections.abc import Callable, Iterable, Iterator

from run_batch.io.inputs.image_names import is_image_name
from run_batch.io.inputs.source import InputError


def is_data_name(name: str) -> bool:
    """Whether dataset readers take a file or folder of this name for data, and not for bookkeeping like `_SUCCESS`.

    Cameras call images `_DSC0001.JPG`.
    """
    return not name.startswith(("_", ".")) or (name[:1] == "_" != name[1:2] and is_image_name(name))


def glob_root(pattern: str) -> str:
    """The folder that the names of the files of a glob are relative to."""
    return os.path.dirname(re.split(r"[*?\[]", pattern)[0])


def find_matches(
    root: str, pattern: str, is_wanted: Callable[[str], bool] = lambda _: True
) -> Iterator[tuple[str, str]]:
    """Path and real path of each file below `root` that a pattern such as `**/*.parquet` matches.

    Args:
        is_wanted: whether a file of this name is, of those that match.

    A folder is listed once, or once for each way in which the pattern leads to it, whatever links lead there. Links are
    followed after everything else, in order: a folder that is also behind a link keeps its own path.

    Raises:
        InputError: a folder cannot be listed, or a link leads nowhere.
    """
    parts = pattern.split("/")
    # Each with its real path, and the parts of the pattern that may match in it.
    folders = [(root, os.path.realpath(root), _expand(frozenset([0]), parts))]
    links: list[tuple[str, str, list[int]]] = []
    seen, found = set[tuple[str, frozenset[int]]](), set[str]()
    while folders or links:
        folder, real_folder, positions = folders.pop() if folders else heapq.heappop(links)
        state = frozenset(positions)
        if (real_folder, state) in seen:
            continue
        seen.add((real_folder, state))
        for entry in _entries(folder):
            if not entry.is_symlink() and entry.is_file() and not is_wanted(entry.name):
                continue
            path, place, inner = _join(folder, entry), _join(real_folder, entry), _step(state, entry.name, parts)
            is_link = entry.is_symlink()
            if os.path.isdir(path) if is_link else entry.is_dir():
                if inner and is_link:
                    heapq.heappush(links, (path, os.path.realpath(path), sorted(inner)))
                elif inner:
                    folders.append((path, place, inner))
            elif _is_match(state, entry.name, parts) and is_wanted(entry.name):
                if place not in found:
                    found.add(place)
                    if not os.path.isfile(path) and os.path.exists(path):
                        raise InputError(f"input.path: {path} is neither a file nor a folder")
                    yield path, os.path.realpath(path) if is_link else place
            elif inner and is_link and not os.path.exists(path):
                raise InputError(f"input.path: {path} is a link that leads nowhere; mend or remove it")


def _join(folder: str, entry: os.DirEntry[str]) -> str:
    return os.path.join(folder, entry.name)


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        return list(os.scandir(folder or "."))
    except OSError as error:
        raise InputError(f"input.path: {folder} cannot be listed: {error.strerror}") from error


def _expand(positions: frozenset[int], parts: list[str]) -> frozenset[int]:
    """Add the parts that come after a `**`, which may match no folder at all."""
    for position in sorted(positions):
        while parts[position] == "**" and position + 1 < len(parts):
            position += 1
            positions |= {position}
    return positions


def _step(state: frozenset[int], name: str, parts: list[str]) -> frozenset[int]:
    """The parts of the pattern that may match inside a folder of this name; none if it cannot hold a match."""
    stay = {p for p in state if parts[p] == "**" and is_data_name(name)}
    go_on = {p + 1 for p in state if p + 1 < len(parts) and _is_named(name, parts[p])}
    return _expand(frozenset(stay | go_on), parts)


def _is_match(state: frozenset[int], name: str, parts: list[str]) -> bool:
    return len(parts) - 1 in state and _is_named(name, parts[-1].replace("**", "*"))


def _is_named(name: str, part: str) -> bool:
    """Whether a part of a pattern matches a name; those of bookkeeping only if it begins as they do."""
    return fnmatch.fnmatchcase(name, part) and (is_data_name(name) or part[0] == name[0])


def distinct(files: Iterable[tuple[str, str]], leave_out: Callable[[str], bool]) -> list[str]:
    """The paths of files, sorted, without those whose real path is to be left out.

    Raises:
        InputError: two paths are the same file, by links to the file itself.
    """
    paths: dict[str, str] = {}
    for path, real in sorted(files):
        if leave_out(real):
            continue
        if real in paths:
            raise InputError(f"input.path: {paths[real]} and {path} are the same file; remove one, or its link")
        paths[real] = path
    return list(paths.values())
