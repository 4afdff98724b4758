"""The memory of a process and its children, measured."""

import contextlib
from pathlib import Path

import psutil


def memory_of(pid: int) -> int:
    """Bytes that a process and its children have for themselves, and those of memory files that they share, once."""
    total, files = 0, {}
    try:
        processes = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0
    for process in processes:
        try:
            rollup = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
            maps = Path(f"/proc/{process.pid}/maps").read_text()
            files |= _arenas(process.pid)
        except OSError:  # it has ended
            continue
        total += next(int(line.split()[1]) << 10 for line in rollup.splitlines() if line.startswith("Pss_Anon:"))
        for line in maps.splitlines():
            if "memfd:run-batch-rows" in line:
                addresses, _, _, _, file = line.split()[:5]
                start, _, end = addresses.partition("-")
                files[file] = int(end, 16) - int(start, 16)
    return total + sum(files.values())


def _arenas(pid: int) -> dict[str, int]:
    """Bytes of memory that each arena takes which a process has open, by its inode: such a file is mostly a hole."""
    found = {}
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):  # closed in the meantime
            if "memfd:run-batch-arena" in str(descriptor.readlink()):
                status = descriptor.stat()
                found[str(status.st_ino)] = status.st_blocks * 512
    return found
