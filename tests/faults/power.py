"""What a power cut would leave of a folder: contents as of their last fsync, names as of their folder's last fsync.

Stricter than real file systems: nothing reaches the disk unless it was asked for.
"""

import os
import shutil
import threading
from pathlib import Path


def watch(folder: Path, durable: Path) -> None:
    """From now on, keep in `durable` what is durable of `folder`, in this process."""
    sync = os.fsync
    contents = {path.stat().st_ino: path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    def copy(path: Path) -> None:
        place = durable / path.relative_to(folder)
        if path.is_dir():
            place.mkdir(parents=True, exist_ok=True)
        else:
            content = contents.get(path.stat().st_ino, b"")
            temporary = durable.with_name(f"{durable.name}-{threading.get_ident()}.tmp")
            temporary.write_bytes(content)
            os.replace(temporary, place)

    def keep(descriptor: int) -> None:
        sync(descriptor)
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        if folder not in (path, *path.parents):
            return
        place = durable / path.relative_to(folder)
        if not path.is_dir():
            contents[path.stat().st_ino] = path.read_bytes()
            if place.exists():
                copy(path)
            return
        place.mkdir(parents=True, exist_ok=True)
        there = {entry.name for entry in os.scandir(path)}
        for old in list(os.scandir(place)):
            if old.name not in there:
                shutil.rmtree(old.path) if old.is_dir() else os.unlink(old.path)
        for name in there:
            if not ((place / name).is_dir() and (path / name).is_dir()):
                copy(path / name)

    os.fsync = keep  # type: ignore[assignment]


def cut(folder: Path, durable: Path) -> None:
    """Leave of `folder` what is durable."""
    shutil.rmtree(folder, ignore_errors=True)
    if durable.exists():
        shutil.copytree(durable, folder)
