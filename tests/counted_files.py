"""A remote file system that counts: files of this machine behind `counted://`, as fsspec reads those of S3."""

import os
from typing import Any, ClassVar

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.spec import AbstractBufferedFile, AbstractFileSystem


class CountedFile(AbstractBufferedFile):
    def _fetch_range(self, start: int, end: int) -> bytes:
        CountedFileSystem.bytes_read += end - start
        CountedFileSystem.requests += 1
        with open(self.path, "rb") as file:
            file.seek(start)
            return file.read(end - start)


class CountedFileSystem(AbstractFileSystem):
    """Counts what all its files together were asked for.

    Attributes:
        bytes_read: whoever asked, and however often for the same.
        requests: each may take a tenth of a second.
    """

    protocol = "counted"
    bytes_read: ClassVar[int] = 0
    requests: ClassVar[int] = 0

    def info(self, path: str, **named: Any) -> dict[str, Any]:
        kind = "directory" if os.path.isdir(path) else "file"
        return {"name": path, "size": os.path.getsize(path), "type": kind}

    def ls(self, path: str, detail: bool = True, **named: Any) -> list[Any]:
        found = [self.info(os.path.join(path, name)) for name in sorted(os.listdir(path))]
        return found if detail else [each["name"] for each in found]

    def _open(self, path: str, mode: str = "rb", block_size: int | None = None, **named: Any) -> CountedFile:
        return CountedFile(self, path, mode, block_size or "default", **named)


fsspec.register_implementation("counted", CountedFileSystem, clobber=True)


def bytes_read_locally() -> int:
    """What this process has read so far, of files and all else."""
    with open("/proc/self/io") as file:
        return int(file.read().split("rchar: ")[1].split()[0])


def write_images(path: Any, rows: int, nbytes: int, row_group: int, **named: Any) -> int:
    """Rows with an id and a prompt around an image of random bytes, in small pages by default; the size of the file."""
    table = pa.table(
        {
            "uid": [f"u{i}" for i in range(rows)],
            "image": [{"bytes": os.urandom(nbytes), "path": None} for _ in range(rows)],
            "prompt": [f"question {i}" for i in range(rows)],
        }
    )
    pages = {"write_batch_size": 16, "use_dictionary": ["prompt"]}
    pq.write_table(table, path, row_group_size=row_group, **pages | named)
    return os.path.getsize(path)
