"""`--watch`: what is shown of a job again and again, in place on a terminal, until the job is complete or idle."""

import os
import time
from collections.abc import Callable
from typing import TextIO

from run_batch.jobs.watch.status import JobStatus

_STATUS_SECONDS = 2.0
# An engine takes a while to load; a job of Slurm's waits in the queue.
_IDLE_SECONDS = 60.0
# Moves the cursor up N lines, and removes what is below it.
_UP, _CLEAR_BELOW = "\x1b[{}F", "\x1b[J"


def watch_job(look: Callable[[], JobStatus], seconds: float = _STATUS_SECONDS) -> JobStatus:
    """Look every few seconds, until the job is complete, or idle for a minute.

    Args:
        look: looks at the job and shows what there is to show.

    Returns:
        What was seen last.
    """
    idle_since = time.monotonic()
    while True:
        found = look()
        if found.state in ("loading", "waiting", "running"):
            idle_since = time.monotonic()
        if found.state == "complete" or time.monotonic() - idle_since > _IDLE_SECONDS:
            return found
        time.sleep(seconds)


class Display:
    """Shows texts one after the other: on a terminal, each in the place of the one before."""

    def __init__(self, out: TextIO) -> None:
        """Show nothing yet."""
        self._out, self._lines = out, 0

    def show(self, text: str) -> None:
        """Show a text of one or several lines."""
        back = f"{_UP.format(self._lines)}{_CLEAR_BELOW}" if self._lines else ""
        if self._out.isatty():
            text, self._lines = _fitting(text, os.get_terminal_size(self._out.fileno()))
        print(f"{back}{text}", file=self._out, flush=True)


def _fitting(text: str, size: os.terminal_size) -> tuple[str, int]:
    """As much of a text as a terminal shows at once, as nothing is taken back that has left it; and the lines there."""
    columns, rows = size.columns or 80, size.lines or 24
    lines = text.split("\n")
    # A line that is longer than the terminal is wide takes several there.
    taken = [max(1, -(-len(line) // columns)) for line in lines]
    if sum(taken) < rows:
        return text, sum(taken)
    while len(taken) > 1 and sum(taken) + 1 >= rows:
        taken.pop()
    left = len(lines) - len(taken)
    return "\n".join([*lines[: len(taken)], f"… {left} more lines"]), sum(taken) + 1
