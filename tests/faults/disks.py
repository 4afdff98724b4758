"""Small disks that can fill up and fail, mounted where nobody else sees them, so that nothing is left behind."""

import ctypes
import errno
import itertools
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

_CLONE_NEWNS = 0x20000


def run(*words: str | Path) -> str:
    """A command of the system.

    Raises:
        subprocess.CalledProcessError: it failed.
    """
    return subprocess.run(list(map(str, words)), check=True, capture_output=True, text=True).stdout


def _why_not() -> str:
    try:
        run("unshare", "-m", "mount", "-t", "tmpfs", "tmpfs", "/mnt")
    except (OSError, subprocess.CalledProcessError) as error:
        return f"may not mount: {getattr(error, 'stderr', '') or error}"
    return ""


_REFUSAL = _why_not()
needs_mounts = pytest.mark.skipif(bool(_REFUSAL), reason=_REFUSAL)


def hide_mounts() -> None:
    """From now on, what this process and its children mount is seen by them alone."""
    if not _REFUSAL:
        if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNS):
            raise OSError(ctypes.get_errno(), "unshare")
        run("mount", "--make-rprivate", "/")


class Ext4:
    """A disk of a few megabytes that becomes read-only by an error, as real ones do, and can be repaired."""

    def __init__(self, image: Path, place: Path) -> None:
        self._image, self.place = image, place
        with image.open("wb") as file:
            file.truncate(8 << 20)
        run("mkfs.ext4", "-q", image)
        self._mount()

    def _mount(self) -> None:
        run("mount", "-o", "loop,errors=remount-ro", self._image, self.place)
        self._device = Path(run("findmnt", "-n", "-o", "SOURCE", self.place).strip()).name

    def fail(self) -> None:
        """The kernel finds an error on it, and writes to it no more."""
        Path(f"/sys/fs/ext4/{self._device}/trigger_fs_error").write_text("1")

    def repair(self) -> None:
        run("umount", self.place)
        repaired = subprocess.run(["e2fsck", "-fy", str(self._image)], capture_output=True).returncode
        assert repaired in (0, 1), "e2fsck: 1 says that there was something to repair"
        self._mount()

    def remove(self) -> None:
        run("umount", "-l", self.place)


@dataclass(frozen=True)
class Failing:
    """Calls of a function of `os` that fail, of those on what is in the output folder.

    Attributes:
        call: name of the function.
        number: its errno.
        first: the first call that fails, counted from 1.
        times: so many fail in succession.
    """

    call: str
    number: int
    first: int = 1
    times: int = 1 << 30


def fail(folder: Path, failing: Failing) -> None:
    """In this process, let calls fail as those to a file system whose server stumbles."""
    call, calls = getattr(os, failing.call), itertools.count(1)

    def refuse(path: Any = ".", *arguments: Any, **named: Any) -> Any:
        is_inside = isinstance(path, str | Path) and Path(path).is_relative_to(folder)
        if is_inside and failing.first <= next(calls) < failing.first + failing.times:
            raise OSError(failing.number, os.strerror(failing.number), str(path))
        return call(path, *arguments, **named)

    setattr(os, failing.call, refuse)


def limit(folder: Path, quota: int) -> None:
    """In this process, let fsync refuse what goes over a quota of some bytes: as NFS does, which learns of it then."""
    sync = os.fsync

    def refuse(descriptor: int) -> None:
        used = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        if used > quota:
            raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))
        sync(descriptor)

    os.fsync = refuse  # type: ignore[assignment]
