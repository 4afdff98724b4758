"""On a terminal, for how long the model has been loading: a line that counts seconds, and goes when that is over."""

import contextlib
import sys
import threading
import time
from collections.abc import Iterator

from tqdm import tqdm

from run_batch.jobs.machine.storage_watch import printing

_TICK_SECONDS = 1.0
# A terminal that is paused keeps nothing waiting.
_END_SECONDS = 1.0


@contextlib.contextmanager
def loading_line(quiet: bool) -> Iterator[None]:
    """Show the line while what is inside runs; elsewhere than on a terminal, the run's watchdog tells each minute.

    Args:
        quiet: show nothing.
    """
    if quiet or not sys.stderr.isatty():
        yield
        return
    over = threading.Event()
    thread = threading.Thread(target=_show, args=(over, time.monotonic()), name="loading-line", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(_END_SECONDS)


def _show(over: threading.Event, since: float) -> None:
    line = tqdm(bar_format="{desc}", leave=False, dynamic_ncols=True)
    with contextlib.suppress(OSError):  # the terminal is gone
        while not over.wait(_TICK_SECONDS):
            with printing():
                line.set_description_str(f"loading the model … {time.monotonic() - since:.0f} s")
        with printing():
            line.close()
