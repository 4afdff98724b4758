"""Says something, or ends the process, where the storage, the engine or standard error itself may hang."""

import contextlib
import os
import sys
import threading
from collections.abc import Callable
from typing import NoReturn

from run_batch.io.secrets import hide_secrets
from run_batch.jobs.machine.processes import kill_children

# Longest wait for a line to be printed: standard error may be a file on storage that hangs.
_SECONDS = 5.0
# The same for finished rows to be saved.
SAVE_SECONDS = 10.0


def say(message: str) -> None:
    """Print a line for people on standard error, unless that hangs."""
    line = f"run-batch: {hide_secrets(message)}"
    _try_for(_SECONDS, lambda: print(f"{_beginning()}{line}", file=sys.stderr, flush=True))


def end_process(code: int, message: str, save: Callable[[], None] | None = None) -> NoReturn:
    """Save what can be saved, say why this process ends, unless there is no message, and end it and its children; from
    any thread.

    Threads that hang are left behind: no other way to end gets past them.
    """
    if save is not None:
        _try_for(SAVE_SECONDS, save)
    if message:
        say(message)
    _try_for(_SECONDS, kill_children)
    os._exit(code)


def _beginning() -> str:
    """What begins a line on standard error: on a terminal, a bar may stand there."""
    return "\r\x1b[K" if sys.stderr.isatty() else ""


def _try_for(seconds: float, action: Callable[[], object]) -> None:
    def act() -> None:
        with contextlib.suppress(Exception):
            action()

    thread = threading.Thread(target=act, name="last-words", daemon=True)
    thread.start()
    thread.join(seconds)
