"""A thread that notices what hangs in this process: an engine, the storage, whatever it is. It touches no storage.

Nothing that is watched needs a clock of its own: it shows its progress, and the watchdog counts the seconds without.
These are seconds in which this process could run: a job that is stopped for an hour, as by `scontrol suspend`, does not
hang.
"""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

# A limit is checked four times before it ends, and once a second at least.
_TICKS, _LONGEST_TICK = 4, 1.0
# What a tick may take longer than it should, on a busy machine; beyond that, the process could not run.
_LATE_SECONDS = 1.0


class AwakeClock:
    """Counts the seconds in which this process could run, where it is asked at least every `tick` seconds."""

    def __init__(self, tick: float = _LONGEST_TICK) -> None:
        self._seconds, self._asked, self._most = 0.0, time.monotonic(), tick + _LATE_SECONDS

    def now(self) -> float:
        """Seconds since the clock was made."""
        now = time.monotonic()
        self._seconds += min(now - self._asked, self._most)
        self._asked = now
        return self._seconds


def _nothing(seconds: float) -> None:
    """Do nothing."""


@dataclass(slots=True, eq=False)
class Watch:
    """Something that may hang.

    Attributes:
        seconds: how long it may make no progress; 0 for no limit.
        on_hang: called once when it has made none for longer; in the watchdog's thread.
        progress: gives a value that changes with the progress; None while there is nothing to do. When left out, only
            the end of the watch is progress.
        on_wait: called about once a second with the seconds without progress, 0 right after some; in the same thread.
    """

    seconds: float
    on_hang: Callable[[float], None]
    progress: Callable[[], object] = bool
    on_wait: Callable[[float], None] = _nothing
    _is_paused: bool = False
    _has_fired: bool = False
    _seen: object = None
    _since: float = 0.0
    _turn: int = 0

    def restart(self, paused: bool) -> None:
        """Begin to count anew; a watch that is paused counts nothing."""
        self._is_paused = paused
        self._turn += 1

    def check(self, now: float) -> None:
        """Compare the progress with that of the last check, at a time of the watchdog's clock."""
        value = None if self._is_paused else self.progress()
        seen = None if value is None else (self._turn, value)
        if seen is None or seen != self._seen:
            self._seen, self._since, self._has_fired = seen, now, False
        waited = now - self._since
        self.on_wait(waited)
        if self.seconds and waited > self.seconds and not self._has_fired and seen is not None:
            self._has_fired = True
            self.on_hang(waited)


class Watchdog:
    """Watches any number of things at once. Its thread starts with the first of them."""

    def __init__(self) -> None:
        self._stacks = threading.local()
        self.begin_anew()

    def begin_anew(self) -> None:
        """Watch nothing, and have no thread; for a process that was forked."""
        self._watches: list[Watch] = []
        self._lock = threading.Lock()
        self._sooner = threading.Event()
        self._thread: threading.Thread | None = None

    def add(self, watch: Watch) -> None:
        """Watch something, until it is removed."""
        watch.restart(paused=False)
        with self._lock:
            self._watches.append(watch)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)
                self._thread.start()
        if 0 < watch.seconds < _TICKS * _LONGEST_TICK:
            self._sooner.set()

    def remove(self, watch: Watch) -> None:
        """Watch it no longer."""
        watch.restart(paused=True)  # a check that has begun must not fire
        with self._lock:
            self._watches.remove(watch)

    @contextmanager
    def watching(self, watch: Watch) -> Iterator[None]:
        """Watch what runs inside. What the same thread was watched for before is paused meanwhile."""
        stack: list[Watch] = self._stacks.__dict__.setdefault("stack", [])
        if stack:
            stack[-1].restart(paused=True)
        stack.append(watch)
        self.add(watch)
        try:
            yield
        finally:
            self.remove(watch)
            stack.pop()
            if stack:
                stack[-1].restart(paused=False)

    def _run(self) -> None:
        clock = AwakeClock()
        tick = _LONGEST_TICK
        while True:
            self._sooner.wait(tick)
            self._sooner.clear()
            with self._lock:
                watches = list(self._watches)
            now = clock.now()
            for watch in watches:
                watch.check(now)
            tick = min([_LONGEST_TICK, *(watch.seconds / _TICKS for watch in watches if watch.seconds)])


# That of this process.
WATCHDOG = Watchdog()
os.register_at_fork(after_in_child=WATCHDOG.begin_anew)
