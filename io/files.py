"""Files written so that no reader sees a part of them, and told apart without reading all of them."""

import hashlib
import os
import socket
from pathlib import Path
from typing import Any

from run_batch.io.transient import retry

_SAMPLE_BYTES = 1 << 16


def list_names(folder: Path) -> list[str]:
    """Names of what is in a folder, in no order. Tried again where the storage fails in a way that may pass.

    Raises:
        OSError: the folder cannot be listed.
    """
    return retry(lambda: [entry.name for entry in os.scandir(folder)])


def read_file(path: Path) -> bytes:
    """Read a file whole. Tried again where the storage fails in a way that may pass.

    A file that another host has just removed may be such a failure first, and no such file then.

    Raises:
        OSError: the file cannot be read.
    """
    return retry(path.read_bytes)


def replace_file(path: Path, content: bytes, durable: bool = True) -> None:
    """Write a small file atomically: readers see the old or the new content, never a part.

    Args:
        durable: wait until the content is on disk. The rename survives a power cut only after `sync_folder`.

    Raises:
        OSError: the file cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{socket.gethostname()}-{os.getpid()}.tmp")

    def write() -> None:
        with open(temporary, "wb") as file:
            file.write(content)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(temporary, path)

    retry(write)


def create_file(path: Path, content: bytes) -> None:
    """Create a small file, unless it is there, and wait until its content is on disk.

    A reader may see a part of it meanwhile, and one that is killed leaves a part: it has to tell that from the whole.

    Raises:
        FileExistsError: it is there, whoever has created it.
        OSError: it cannot be written.
    """

    def write() -> None:
        with open(path, "xb") as file:
            try:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            except OSError:
                path.unlink(missing_ok=True)
                raise

    retry(write)


def is_same_file(path: Path, descriptor: int) -> bool:
    """Whether a path still leads to the file that this process has open; another may have taken its place.

    Raises:
        OSError: the path cannot be looked at.
    """
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def sync_folder(folder: Path) -> None:
    """Make what was created, renamed or removed in `folder` survive a power cut.

    Raises:
        OSError: the folder cannot be synced.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sample_file(path: Path, samples: int) -> bytes:
    """Compute a digest of a file's size and of evenly spaced blocks of 64 KiB, the first and the last included.

    A file no larger than these blocks is read whole. A change of the same size between the blocks goes unnoticed.

    Args:
        samples: blocks to read, at least 2.

    Returns:
        SHA-256, 32 bytes.

    Raises:
        OSError: the file cannot be read.
    """
    with open(path, "rb") as file:
        return sample_open_file(file, os.fstat(file.fileno()).st_size, samples)


def sample_open_file(file: Any, size: int, samples: int) -> bytes:
    """Compute the digest of `sample_file` of an open file of `size` bytes, which may be a remote one."""
    digest = hashlib.sha256(str(size).encode())
    if size <= samples * _SAMPLE_BYTES:
        digest.update(file.read())
        return digest.digest()
    for sample in range(samples):
        file.seek((size - _SAMPLE_BYTES) * sample // (samples - 1))
        digest.update(file.read(_SAMPLE_BYTES))
    return digest.digest()
