"""Reads files below the media root and no others, whatever `..`, absolute paths or symbolic links say.

The media root is a folder, or the URL of one in a store of objects.
"""

import errno
import os
import stat
from pathlib import Path
from typing import TypeAlias

from run_batch.io.files import sample_file
from run_batch.io.media.errors import MediaError
from run_batch.io.transient import retry

MediaRoot: TypeAlias = Path | str

# No system call takes a longer path (Linux's PATH_MAX, with the NUL byte at its end).
MAX_PATH_CHARACTERS = 4095
# Error messages show no more of a path.
_SHOWN_CHARACTERS = 200
# Blocks of 64 KiB that are read of a file to tell it from others.
_SAMPLES = 4
# What is longer than any file name is rarely meant to be a path.
_MAX_NAME_CHARACTERS = 255


def exists_below(root: Path | None, text: str) -> bool:
    """Whether there is something of this name below `root`, a file or not."""
    path = _resolve(root, text)
    return path is not None and os.path.lexists(path)


def sample_below(root: Path, text: str) -> str | None:
    """A digest of the size of a regular file below `root` and of some of its content, hexadecimal; None where there is
    no such file, or it cannot be read.

    Args:
        root, text: as in `read_below`.
    """
    path = _resolve(root, text)
    try:
        is_file = path is not None and stat.S_ISREG(os.stat(path).st_mode)
        return sample_file(Path(path), _SAMPLES).hex() if path is not None and is_file else None
    except OSError:
        return None


def object_below(root: str, text: str) -> str | None:
    """The URL of an object below a media root in a store of objects; None where `text` is no path that stays inside.

    Args:
        root: its URL, without a slash at its end.
        text: path of the object, relative to `root`.
    """
    parts = text.removeprefix("./").split("/")
    if len(text) > MAX_PATH_CHARACTERS or "\0" in text or any(part in ("", ".", "..") for part in parts):
        return None
    return f"{root}/{'/'.join(parts)}"


def read_below(root: Path | None, text: str, max_bytes: int) -> bytes:
    """Read a regular file below `root`.

    Args:
        root: the media root, with symbolic links resolved; None allows no file.
        text: path of the file, absolute or relative to `root`.
        max_bytes: largest file that is read.

    Raises:
        MediaError: `path_not_allowed`, `image_not_found`, `image_unreadable` or `image_too_large`.
    """
    shown = _shown(text)
    if root is None:
        raise MediaError("path_not_allowed", f"{shown}: the input is not on a local file system: set input.media_root")
    if not text or "\0" in text:
        raise MediaError("image_not_found", "the path is empty or holds a NUL character")
    if len(text) > MAX_PATH_CHARACTERS:
        raise MediaError("image_unreadable", f"{shown}: {os.strerror(errno.ENAMETOOLONG)}")
    path = _resolve(root, text)
    if path is None:
        raise MediaError("path_not_allowed", f"{shown} leads out of input.media_root")
    try:
        return retry(lambda: _read_regular_file(_open_below(root, path), shown, max_bytes))
    except FileNotFoundError:
        raise MediaError("image_not_found", f"no file {shown} in input.media_root") from None
    except OSError as error:
        raise MediaError("image_unreadable", f"{shown}: {error.strerror}") from error


def _resolve(root: Path | None, text: str) -> str | None:
    """The path of a file without symbolic links; None where it leads out of `root`, or `text` cannot be a path."""
    if root is None or not text or "\0" in text or len(text) > MAX_PATH_CHARACTERS:
        return None
    path = os.path.realpath(root / text)
    return path if os.path.commonpath([path, root]) == str(root) else None


def _shown(text: str) -> str:
    if len(text) <= _MAX_NAME_CHARACTERS:
        return text[:_SHOWN_CHARACTERS]
    return f"{text[:_SHOWN_CHARACTERS]}… ({len(text):,} characters: if this is base64, put data:;base64, before it)"


def _open_below(root: Path, path: str) -> int:
    """Open a file below `root` by its resolved path, without following any symbolic link.

    A folder that is replaced by a link between resolving and opening thus leads to an error, not out of `root`.
    """
    *folders, name = Path(path).relative_to(root).parts or (".",)
    flags = os.O_NOFOLLOW | os.O_CLOEXEC
    folder = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in folders:
            inner = os.open(part, os.O_PATH | os.O_DIRECTORY | flags, dir_fd=folder)
            os.close(folder)
            folder = inner
        # Non-blocking: opening a FIFO otherwise waits for a writer.
        return os.open(name, os.O_RDONLY | os.O_NONBLOCK | flags, dir_fd=folder)
    finally:
        os.close(folder)


def _read_regular_file(descriptor: int, shown: str, max_bytes: int) -> bytes:
    with open(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise MediaError("image_unreadable", f"{shown} is not a regular file")
        # One byte more than is allowed: a file may grow, and some file systems report no size.
        content = b"" if status.st_size > max_bytes else file.read(max_bytes + 1)
    if status.st_size > max_bytes or len(content) > max_bytes:
        size = max(status.st_size, len(content))
        raise MediaError("image_too_large", f"{shown}: {size:,} bytes; the limit is {max_bytes:,} bytes")
    return content
