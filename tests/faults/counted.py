"""Counts what a process asks of the file system about files below a folder: every call that reaches its metadata.

Reading and writing of file contents are not counted, nor is what C++ does: the callers of Arrow are counted instead.
"""

import os
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from run_batch.io.outputs.shards import ShardStore


class Operations:
    """The calls of this process about files below a folder.

    Attributes:
        total: calls so far.
        changed: the paths that were created, renamed to, or removed.
    """

    def __init__(self, folder: Path, unnamed_in: Path) -> None:
        """Count nothing before `listen`.

        Args:
            folder: calls about files below it are counted.
            unnamed_in: folder in it where files without a name are made.
        """
        self._folder, self._unnamed_in = f"{folder}/", str(unnamed_in)
        self.total = 0
        self.changed: set[str] = set()

    def count(self, path: Any, changes: bool = False) -> None:
        name = os.fspath(path) if isinstance(path, str | os.PathLike) else ""
        if str(name).startswith(self._folder):
            self.total += 1
            if changes:
                self.changed.add(str(name))

    def listen(self) -> None:
        """From now on, in this process, to its end."""
        sys.addaudithook(self._hear)
        stat, metadata, opened = os.stat, ShardStore.metadata, pq.ParquetFile

        def counted_stat(path: Any, *arguments: Any, **named: Any) -> os.stat_result:
            self.count(path)
            return stat(path, *arguments, **named)

        def counted_metadata(store: ShardStore, index: int) -> Any:
            self.count(store.path(index))
            return metadata(store, index)

        def counted_open(path: Any, **named: Any) -> Any:
            self.count(path)
            return opened(path, **named)

        os.stat = counted_stat  # type: ignore[assignment]
        ShardStore.metadata = counted_metadata  # type: ignore[method-assign]
        pq.ParquetFile = counted_open  # type: ignore[misc,assignment]

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            # Python announces a file without a name as the folder that it will be in.
            unnamed = arguments[0] == self._unnamed_in
            self.count(arguments[0], changes=bool(arguments[2] & os.O_CREAT) and not unnamed)
        elif event in ("os.scandir", "os.listdir"):
            self.count(arguments[0])
        elif event in ("os.mkdir", "os.remove", "os.rmdir"):
            self.count(arguments[0], changes=True)
        elif event == "os.rename":
            self.count(arguments[0], changes=True)
            self.count(arguments[1], changes=True)
