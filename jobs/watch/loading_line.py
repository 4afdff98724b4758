"""What a run does until its first row, and for how long: on a terminal a line that counts seconds, and goes when that
is over; in a file a line for each phase that takes more than a moment.
"""

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator

from tqdm import tqdm

from run_batch.jobs.machine.storage_watch import printing
from run_batch.jobs.watch.run_messages import say
from run_batch.model.engine_phases import begun_phases, listen_for_phases

_TICK_SECONDS = 1.0
# A terminal that is paused keeps nothing waiting.
_END_SECONDS = 1.0

# What is done now, and since when by time.monotonic.
Doing = tuple[str, float]


class LoadingLine:
    """The line, from its start to its end."""

    def __init__(self, doing: Callable[[], Doing]) -> None:
        """Show it from now on.

        Args:
            doing: what is done now, as `compiling the model`.
        """
        self._over, self._doing = threading.Event(), doing
        show = self._count if sys.stderr.isatty() else self._tell
        self._thread = threading.Thread(target=show, name="loading-line", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Take it away."""
        self._over.set()
        self._thread.join(_END_SECONDS)

    def _count(self) -> None:
        line = tqdm(bar_format="{desc}", leave=False, dynamic_ncols=True)
        with contextlib.suppress(OSError):  # the terminal is gone
            while not self._over.wait(_TICK_SECONDS):
                what, since = self._doing()
                with printing():
                    line.set_description_str(f"{what} … {time.monotonic() - since:.0f} s")
            with printing():
                line.close()

    def _tell(self) -> None:
        told = ""
        with contextlib.suppress(OSError):
            while not self._over.wait(_TICK_SECONDS):
                what, _ = self._doing()
                if what != told:
                    say(f"{what} ...")
                told = what


@contextlib.contextmanager
def loading_line(quiet: bool, what: str = "loading the model") -> Iterator[None]:
    """Show the line while what is inside runs.

    Args:
        quiet: show nothing.
        what: is done; where the engine tells of a phase of its start, that stands there instead.
    """
    if quiet:
        yield
        return
    line = LoadingLine(doing_now(what))
    try:
        yield
    finally:
        line.close()


def doing_now(what: str) -> Callable[[], Doing]:
    """What is done from now on: what an engine tells of its start, and `what` until one tells something."""
    then = time.monotonic()
    listen_for_phases()

    def doing() -> Doing:
        phases = begun_phases(then)
        return (str(phases[-1].phase), phases[-1].since) if phases else (what, then)

    return doing
