"""The files that `input.path` names: a file, a folder, a glob, a URL of a file system that fsspec knows, or several."""

import contextlib
import difflib
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import Any

from run_batch.io import transient
from run_batch.io.inputs.local_files import distinct, find_matches, glob_root, is_data_name
from run_batch.io.inputs.read_ahead import without_read_ahead
from run_batch.io.inputs.read_errors import unreachable
from run_batch.io.inputs.remote_file import RemoteFile, buffered
from run_batch.io.inputs.source import InputError
from run_batch.io.object_stores import MissingStoreError, file_system
from run_batch.io.transient import describe, may_pass, refusal, retry

_NAMED = 3


@dataclass(frozen=True, slots=True)
class InputFiles:
    """Files of one file system.

    Attributes:
        paths: one for each file; those of a folder or a glob are sorted, those of a list are in its order.
        root: path of the folder that the names of the files are relative to.
        filesystem: the fsspec file system that the paths belong to; None for local paths.
        is_folder: whether they are all files of `root`, and not those that a glob or a path chose.
        is_list: whether several paths chose them.
        commits: see hub_commits.py; empty where none of them is on the Hub.
    """

    paths: list[str]
    root: str
    filesystem: Any = None
    is_folder: bool = False
    is_list: bool = False
    commits: Mapping[str, str] = field(default_factory=dict)

    def name(self, path: str) -> str:
        """The path of a file relative to `root`."""
        # Names become row ids and are stored, so the query of a URL, which may be a signature, is no part of them.
        return _without_query(path).removeprefix(self.root).lstrip("/")

    def read_card(self) -> str:
        """The README.md of the folder; empty without one.

        Raises:
            InputError: it cannot be read.
        """
        path = f"{self.root.rstrip('/')}/README.md"
        if not self.is_folder:
            return ""
        try:
            with contextlib.closing(self.open(path)) as file:
                content: bytes = file.read()
            return content.decode("utf-8", "replace")
        except FileNotFoundError:
            return ""
        except OSError as error:
            # What a store of objects answers for a file that is not there, to somebody who may not list the others.
            if self.filesystem is not None and isinstance(error, PermissionError):
                return ""
            raise _unread(f"input.path: {path}", error) from error

    def open(self, path: str) -> Any:
        """Open a file for reading in binary.

        Raises:
            OSError: it cannot be opened.
            InputError: the file system cannot be reached, or refuses.
        """
        filesystem = self.filesystem
        if filesystem is None:
            return retry(lambda: open(path, "rb"))
        return RemoteFile(lambda: without_read_ahead(filesystem.open(path, "rb")), path)

    def open_buffered(self, path: str) -> Any:
        """Open a file whose bytes are read in small steps, in binary; raises the errors of `open`."""
        file = self.open(path)
        return file if self.filesystem is None else buffered(file)

    def state(self, path: str) -> tuple[int, int]:
        """Size in bytes and time of the last change in nanoseconds; the time is 0 on remote file systems.

        Raises:
            FileNotFoundError: there is no such file.
            OSError, InputError: it cannot be looked at.
        """
        filesystem = self.filesystem
        if filesystem is None:
            status = retry(lambda: os.stat(path))
            return status.st_size, status.st_mtime_ns
        try:
            return retry(lambda: filesystem.size(path), transient.REMOTE_PAUSES), 0
        except Exception as error:  # every file system has errors of its own
            if isinstance(error, FileNotFoundError) and not may_pass(error) and not refusal(error):
                raise
            raise _unread(path, error) from error


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which files of a folder are rows. Those that a path or a glob names are taken whatever they are called.

    Attributes:
        name: what they are, for people.
        is_data: whether a file of this name is.
    """

    name: str
    is_data: Callable[[str], bool]


_PARQUET = Wanted("Parquet file", lambda name: name.endswith(".parquet"))


def find_files(
    path: str | Sequence[str], leave_out: Callable[[str], bool] = lambda _: False, wanted: Wanted = _PARQUET
) -> InputFiles:
    """Find the files that a path, glob or URL names, or a list of them.

    Args:
        leave_out: whether a local file, given by its real path, is no part of the input.
        wanted: which files of a folder are rows.

    Raises:
        UnreachableInputError: storage or network fail in a way that may pass.
        InputError: there are none, or one is there twice, or the file system of the URL cannot be used.
    """
    if isinstance(path, str):
        return _find_by_path(path, leave_out, wanted)
    found = [_find_by_path(one, leave_out, wanted) for one in path]
    return join_files(found)


def join_files(found: Sequence[InputFiles]) -> InputFiles:
    """The files of a list of paths, in its order, with names below the folder that all are in.

    Raises:
        InputError: a file is there twice, or the paths are of several file systems.
    """
    filesystem = found[0].filesystem
    if len(found) == 1:
        return found[0]
    if any(files.filesystem is not filesystem for files in found):
        raise InputError("input.path: the paths of a list have to be of one file system, all local or all of one URL")
    paths = [path for files in found for path in files.paths]
    seen = dict[str, str]()
    for path in paths:
        real = path if filesystem else os.path.realpath(path)
        if real in seen:
            same = "is there twice" if seen[real] == path else f"and {seen[real]} are the same file"
            raise InputError(f"input.path: {path} {same}; name each file once")
        seen[real] = path
    return InputFiles(paths, _common_root([files.root for files in found]), filesystem, is_list=True)


def _common_root(roots: Sequence[str]) -> str:
    """The deepest folder that all folders are in."""
    parts = [root.rstrip("/").split("/") for root in roots]
    common = [level[0] for level in takewhile(lambda level: len(set(level)) == 1, zip(*parts, strict=False))]
    return "/".join(common) or ("/" if roots[0].startswith("/") else "")


def _find_by_path(path: str, leave_out: Callable[[str], bool], wanted: Wanted) -> InputFiles:
    is_url = "://" in path
    try:
        find = (
            (lambda: _find_by_url(path, leave_out, wanted)) if is_url else lambda: _find_local(path, leave_out, wanted)
        )
        return retry(find, transient.REMOTE_PAUSES if is_url else None)
    except InputError as error:
        if may_pass(error):
            raise _unread(f"input.path {path}", error.__cause__ or error) from error
        raise
    except Exception as error:  # every file system has errors of its own
        if not is_url and not isinstance(error, OSError):
            raise
        raise _unread(f"input.path {path}", error) from error


def _unread(path: str, error: BaseException) -> InputError:
    if may_pass(error):
        return unreachable(path, error)
    return InputError(f"{path} cannot be read: {describe(refusal(error) or error)}")


def _find_by_url(url: str, leave_out: Callable[[str], bool], wanted: Wanted) -> InputFiles:
    from fsspec.implementations.local import LocalFileSystem

    try:
        filesystem, path = file_system(url)
    except MissingStoreError as error:
        raise InputError(f"input.path {url} {error}") from None
    local = isinstance(filesystem, LocalFileSystem)
    return _find_local(path, leave_out, wanted) if local else _find_remote(filesystem, path, wanted)


def _find_local(path: str, leave_out: Callable[[str], bool], wanted: Wanted) -> InputFiles:
    place = Path(path)
    if any(c in path for c in "*?[") and not place.exists():
        root = glob_root(path)
        found = list(find_matches(root, path.removeprefix(root).lstrip("/")))
    elif place.is_dir():
        root, found = path, list(find_matches(path, "**/*", wanted.is_data))
    elif place.is_file():
        root, found = str(place.parent), [(path, os.path.realpath(path))]
    elif place.exists():
        raise InputError(f"input.path {path} is neither a file nor a folder")
    else:
        raise InputError(f"input.path {path}: no such file or folder{_similar(place)}")
    if not found:
        raise InputError(f"input.path {path}: no {wanted.name} there{_what_is_there(place)}")
    paths = distinct(found, leave_out)
    if not paths:
        raise InputError(f"input.path {path}: no {wanted.name} there but the results of this job")
    return InputFiles(paths, root, is_folder=place.is_dir())


def _find_remote(filesystem: Any, path: str, wanted: Wanted) -> InputFiles:
    if _without_query(path) != path:
        return InputFiles([path], _without_query(path).rsplit("/", 1)[0], filesystem)
    root = re.split(r"[*?\[]", path)[0].rsplit("/", 1)[0]
    if any(c in path for c in "*?["):
        found = sorted(filesystem.glob(path))
    elif _is_folder(filesystem, path):
        inside = {p: p.removeprefix(path).strip("/").split("/") for p in filesystem.find(path)}
        found = sorted(p for p, parts in inside.items() if all(map(is_data_name, parts)))
        found, root = [p for p in found if wanted.is_data(p.rsplit("/", 1)[-1])], path
    else:
        found = [path]
    found = [p for p in found if is_data_name(p.rsplit("/", 1)[-1])]
    if not found:
        raise InputError(f"input.path {path}: no {wanted.name} there")
    return InputFiles(found, root, filesystem, is_folder=root == path)


def _is_folder(filesystem: Any, path: str) -> bool:
    """Whether a path is a folder. `isdir` alone says no where the file system fails; `info` raises that."""
    try:
        is_folder = filesystem.info(path)["type"] == "directory"
    except FileNotFoundError as error:
        if may_pass(error):
            raise
        is_folder = False
    return is_folder or bool(filesystem.isdir(path))


def _without_query(path: str) -> str:
    """Cut the query off an http URL; leave other paths as they are, where `?` is part of a glob."""
    return path.partition("?")[0] if path.startswith(("http://", "https://")) else path


def _what_is_there(place: Path) -> str:
    """The names of some files in a folder without any that is wanted."""
    names = sorted(entry.name for entry in os.scandir(place) if entry.is_file()) if place.is_dir() else []
    more = ", …" if len(names) > _NAMED else ""
    return f", but {', '.join(names[:_NAMED])}{more}" if names else ""


def _similar(place: Path) -> str:
    if not place.parent.is_dir():
        return ""
    nearest = difflib.get_close_matches(place.name, [p.name for p in place.parent.iterdir()], n=1)
    return f"; did you mean {nearest[0]}?" if nearest else ""
