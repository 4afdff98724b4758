"""A process that dies right before one of its changes to a folder: a file opened to be written, renamed or removed."""

import os
import signal
import sys
from pathlib import Path
from typing import Any

_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def die_before_change(folder: Path, number: int) -> None:
    """From now on, count the changes of this process below a folder, and kill it before this one, counted from 1."""
    below, process, left = f"{folder}/", os.getpid(), number

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal left
        is_change = event in ("os.remove", "os.rename", "os.link", "os.mkdir", "os.rmdir")
        if not is_change and not (event == "open" and isinstance(arguments[2], int) and arguments[2] & _WRITES):
            return
        if os.getpid() == process and isinstance(arguments[0], str | Path) and str(arguments[0]).startswith(below):
            left -= 1
            if left == 0:
                os.kill(process, signal.SIGKILL)

    sys.addaudithook(watch)
