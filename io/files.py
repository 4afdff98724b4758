"""Small things done with files: replacing one atomically, making renames durable, telling whether one has changed."""

import hashlib
import os
import socket
from pathlib import Path

_SAMPLE_BYTES = 1 << 16


def replace_file(path: Path, content: bytes, durable: bool = True) -> None:
    """Write a small file so that readers see the old or the new content, never a part.

    Args:
        durable: wait until the content is on disk.
    """
    temporary = path.with_name(f".{path.name}.{socket.gethostname()}-{os.getpid()}.tmp")
    with open(temporary, "wb") as file:
        file.write(content)
        if durable:
            file.flush()
            os.fsync(file.fileno())
    os.replace(temporary, path)


def sync_folder(folder: Path) -> None:
    """Make renames in `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sample_file(path: Path, samples: int) -> bytes:
    """A digest of a file's size and of blocks of 64 KiB at equal distances, its first and last among them.

    A small file is read whole. A change in place that spares every block goes unseen.

    Args:
        samples: blocks to read, at least 2.

    Raises:
        OSError: the file cannot be read.
    """
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        digest.update(str(size).encode())
        if size <= samples * _SAMPLE_BYTES:
            digest.update(file.read())
            return digest.digest()
        for sample in range(samples):
            file.seek((size - _SAMPLE_BYTES) * sample // (samples - 1))
            digest.update(file.read(_SAMPLE_BYTES))
    return digest.digest()
