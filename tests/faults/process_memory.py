"""The memory of a process and its children, measured."""

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
        except OSError:  # it has ended
            continue
        total += next(int(line.split()[1]) << 10 for line in rollup.splitlines() if line.startswith("Pss_Anon:"))
        for line in maps.splitlines():
            if "memfd:run-batch-rows" in line:
                addresses, _, _, _, file = line.split()[:5]
                start, _, end = addresses.partition("-")
                files[file] = int(end, 16) - int(start, 16)
    return total + sum(files.values())
