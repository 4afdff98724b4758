"""What the first look at a large file found, which reads all of it: kept in the user's cache.

A file is looked at by whoever comes first, while others wait for it, also on other machines that share the cache. Who
cannot use the cache looks itself: nothing depends on it.
"""

import base64
import contextlib
import hashlib
import json
import logging
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa

from run_batch.io.files import replace_file
from run_batch.io.inputs.columns import Columns
from run_batch.io.inputs.file_format import FileFacts, FileFormat, OpenFile
from run_batch.io.inputs.first_look import look_at_each
from run_batch.io.inputs.input_files import InputFiles

_LOG = logging.getLogger(__name__)
# Changes when what is kept does.
_VERSION = 2
# Smaller files are looked at in a second.
_LEAST_BYTES = 32 << 20
# Whose first look takes so long that people want to know.
_LARGE_BYTES = 4 << 30
# A file may change again within the resolution of its time.
_SETTLED_SECONDS = 2.0
# Until somebody looks who has waited for another one that may hang.
_WAIT_SECONDS = 1800.0
_KEPT_SECONDS = 60 * 86400.0


class LookedAtOnce(FileFormat, Protocol):
    """A format whose first look at a file reads all of it."""

    def dump_content(self, content: Any) -> Any:
        """`FileFacts.content` as JSON takes it."""
        ...

    def load_content(self, dumped: Any) -> Any:
        """Read what `dump_content` gave; raises ValueError, TypeError or KeyError for something else."""
        ...


class CachedFormat:
    """A format that looks at a file where nobody has yet; see FileFormat."""

    def __init__(self, kind: LookedAtOnce, key: str) -> None:
        """Looks by `kind`, whose results are kept under `key`."""
        self._kind, self._key, self.name, self.suffixes = kind, key, kind.name, kind.suffixes

    def look_at_all(self, files: InputFiles) -> list[FileFacts]:
        """Look at all files."""
        return look_at_each(files, self.look_at)

    def look_at(self, files: InputFiles, path: str) -> FileFacts:
        """Look at one file, or at what is kept of it."""
        kept = self._place(files, path)
        if kept is None:
            return self._kind.look_at(files, path)
        found = self._read(kept, files, path)
        if found is not None:
            return found
        with _locked(kept):
            found = self._read(kept, files, path)
            if found is None:
                size = files.state(path)[0]
                if size >= _LARGE_BYTES:
                    _LOG.warning("reads %s once, %.0f GB, to find its rows; that may take minutes", path, size / 1e9)
                found = self._kind.look_at(files, path)
                self._keep(kept, found)
            return found

    def columns(self, facts: Sequence[FileFacts]) -> Columns:
        """The columns of all files."""
        return self._kind.columns(facts)

    def open(self, files: InputFiles, facts: FileFacts, schema: pa.Schema, batch_rows: int) -> OpenFile:
        """Open a file."""
        return self._kind.open(files, facts, schema, batch_rows)

    def _place(self, files: InputFiles, path: str) -> Path | None:
        """Where what is found of a file is kept as it is now; None for one that is not kept."""
        if files.filesystem is not None:
            return None
        try:
            size, changed = files.state(path)
            if size < _LEAST_BYTES or time.time() - changed / 1e9 < _SETTLED_SECONDS:
                return None
            folder = _cache_folder()
            folder.mkdir(parents=True, exist_ok=True)
        except OSError:
            return None
        what = f"{_VERSION} {self._key} {size} {changed} {os.path.realpath(path)}"
        return folder / f"{hashlib.sha256(os.fsencode(what)).hexdigest()}.json"

    def _read(self, kept: Path, files: InputFiles, path: str) -> FileFacts | None:
        try:
            content = json.loads(kept.read_bytes())
            size, changed, digest, groups, offsets, is_seekable, schema, of_format = content
            return FileFacts(
                path,
                files.name(path),
                size,
                changed,
                pa.ipc.read_schema(pa.py_buffer(base64.b64decode(schema))),
                tuple(groups),
                digest,
                tuple(offsets),
                is_seekable,
                content=self._kind.load_content(of_format),
            )
        except (OSError, ValueError, TypeError, KeyError, pa.ArrowException):
            return None

    def _keep(self, kept: Path, facts: FileFacts) -> None:
        schema = base64.b64encode(facts.schema.serialize().to_pybytes()).decode()
        of_format = self._kind.dump_content(facts.content)
        numbers = [facts.size, facts.changed, facts.digest, facts.row_groups, facts.offsets, facts.is_seekable]
        with contextlib.suppress(OSError):
            replace_file(kept, json.dumps([*numbers, schema, of_format]).encode(), durable=False)
            _remove_old(kept.parent)


def _cache_folder() -> Path:
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(cache) / "run-batch" / "first-looks"


@contextlib.contextmanager
def _locked(kept: Path) -> Iterator[None]:
    """Hold the lock of what is kept, if it can be had: somebody else may be looking at the file just now."""
    from filelock import FileLock, Timeout

    lock = FileLock(f"{kept}.lock", timeout=_WAIT_SECONDS)
    with contextlib.suppress(OSError, NotImplementedError, Timeout):
        lock.acquire(poll_interval=0.2)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            lock.release()


def _remove_old(folder: Path) -> None:
    until = time.time() - _KEPT_SECONDS
    for entry in os.scandir(folder):
        with contextlib.suppress(OSError):
            if entry.stat().st_mtime < until:
                os.unlink(entry.path)
