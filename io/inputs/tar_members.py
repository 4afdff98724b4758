"""The files in a tar archive, found by their headers alone. Nothing is ever extracted, and what no shard of a data set
holds is refused: links, devices, names that lead out of the archive, sizes beyond its end.
"""

import posixpath
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

_BLOCK = tarfile.BLOCKSIZE
# Of headers with long names and the like; a hostile one is as large as it says.
_LARGEST_HEADER = 1 << 20


class TarError(Exception):
    """An archive is damaged, or holds what no shard of a data set does."""


@dataclass(frozen=True, slots=True)
class Member:
    """A file in an archive.

    Attributes:
        name: its path in the archive.
        header: the byte at which its header begins.
        start: the byte at which its content begins.
        size: of its content, in bytes.
        changed: time of its last change, in seconds since the epoch.
    """

    name: str
    header: int
    start: int
    size: int
    changed: float


class _Headers:
    """What the library reads of an archive: headers alone, of a bounded size."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int) -> bytes:
        if size > _LARGEST_HEADER:
            raise TarError(f"a header of {size:,} bytes")
        content: bytes = self._file.read(size)
        return content


def read_members(file: Any, size: int, start: int = 0) -> Iterator[Member]:
    """The files of an archive, in its order, from a header on.

    Args:
        file: open for reading in binary; whoever takes a member may seek in it.
        size: of the archive, in bytes.
        start: the byte at which a header begins.

    Raises:
        TarError: the archive is damaged or cut off, or holds something else than files and folders.
        OSError: it cannot be read.
    """
    file.seek(start)
    try:
        headers: Any = _Headers(file)
        archive: Any = tarfile.TarFile(fileobj=headers, mode="r", encoding="utf-8", errors="strict")
        found = archive.next()
        while found is not None:
            end = found.offset_data + found.size
            if found.size < 0 or end > size:
                raise TarError(f"{found.name!a} has {found.size:,} bytes, more than are left: the archive is cut off")
            if not found.isdir():
                yield _checked(found)
            archive.members.clear()  # the library keeps all that it has found
            found = archive.next()
        _check_end(file, archive.offset, size)
    except (tarfile.TarError, UnicodeError, ValueError, RecursionError) as error:
        raise TarError(f"{type(error).__name__}: {error}" if str(error) else type(error).__name__) from None


def _checked(found: tarfile.TarInfo) -> Member:
    if found.issym() or found.islnk():
        raise TarError(f"{found.name!a} is a link to {found.linkname!a}; pack the file itself (tar --dereference)")
    if not found.isreg() or found.sparse is not None:
        raise TarError(f"{found.name!a} is no plain file")
    if found.name.startswith("/") or ".." in found.name.split("/"):
        raise TarError(f"{found.name!a} is a name that leads out of the archive")
    return Member(posixpath.normpath(found.name), found.offset, found.offset_data, found.size, found.mtime)


def _check_end(file: Any, offset: int, size: int) -> None:
    """The library takes whatever is no header for the end."""
    file.seek(offset)
    rest = file.read(_BLOCK)
    if len(rest) < _BLOCK:
        raise TarError(f"no end mark after byte {offset:,}: the archive is cut off")
    if any(rest):
        raise TarError(f"no header at byte {offset:,}")
    while rest:
        rest = file.read(_LARGEST_HEADER)
        if any(rest):
            raise TarError(
                f"more behind its end at byte {offset:,}, as where archives were joined; join the files instead"
            )
