"""Notices when storage stops answering: says so, lets the run take no more rows, and ends the process in the end.

What blocks in the kernel raises no error, and no thread that it blocks can say anything. So the watchdog's thread does,
which touches no storage.
"""

import contextlib
import os
import socket
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TypeVar

from run_batch.jobs.job.errors import EXIT_RUN_FAILED
from run_batch.jobs.machine.last_words import end_process, say
from run_batch.jobs.machine.thread_activity import activity_of_this_thread
from run_batch.jobs.machine.watchdog import WATCHDOG, Watch

# Without progress for so long, storage counts as stalled.
STALL_SECONDS = 30.0

Item = TypeVar("Item")


class StorageWatch:
    """Watches what this process does with its storage.

    Attributes:
        seconds: without progress for so long, the process ends; 0 for no limit.
        save: makes finished rows durable, as far as the storage lets it, before the process ends.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.save: Callable[[], None] = lambda: None
        self._stalled: dict[str, bool] = {}

    @property
    def is_stalled(self) -> bool:
        """Whether something that is to write finished rows waits for the storage."""
        return any(self._stalled.values())

    @property
    def stalled(self) -> str:
        """What waits for the storage, for people; empty while nothing does."""
        return next(iter(self._stalled.copy()), "")

    @property
    def _stall_seconds(self) -> float:
        return min(STALL_SECONDS, self.seconds / 2) if self.seconds else STALL_SECONDS

    def call(self, what: str) -> AbstractContextManager[None]:
        """Around some calls of this thread to the storage that take seconds at most."""
        return self._watching(what)

    def thread(self, what: str) -> AbstractContextManager[None]:
        """Around all that this thread does, with the storage or without it: it hangs when it does not run at all."""
        return self._watching(what, activity_of_this_thread())

    def each(self, what: str, items: Iterable[Item], is_limited: bool) -> Iterator[Item]:
        """The items, each of which this thread reads from the storage.

        Args:
            is_limited: end the process if an item does not come; if not, only tell.
        """
        iterator = iter(items)
        none = object()
        while True:
            with self._watching(what, is_limited=is_limited):
                item = next(iterator, none)
            if item is none:
                return
            yield item  # type: ignore[misc]

    @contextmanager
    def output(self, what: str, keeps_up: Callable[[], object], works: Callable[[], object]) -> Iterator[None]:
        """Watch a thread that writes what is finished.

        Args:
            keeps_up: gives a value that changes as long as the thread keeps up; None while it has nothing to do.
            works: the same, and the value changes with each call that the storage answers.
        """
        watches = [
            Watch(0, _never, keeps_up, lambda waited: self._tell(what, waited, is_output=True)),
            # What was taken before it stalled is in the journal, unless that is what hangs: there is nothing to save.
            Watch(self.seconds, lambda waited: self._end(what, lambda: None), works),
        ]
        for watch in watches:
            WATCHDOG.add(watch)
        try:
            yield
        finally:
            for watch in watches:
                WATCHDOG.remove(watch)
            self._tell(what, 0.0)

    @contextmanager
    def _watching(self, what: str, progress: Callable[[], object] = bool, is_limited: bool = True) -> Iterator[None]:
        watch = Watch(
            self.seconds if is_limited else 0.0,
            lambda waited: self._end(what, self.save),
            progress,
            lambda waited: self._tell(what, waited),
        )
        try:
            with WATCHDOG.watching(watch):
                yield
        finally:
            self._tell(what, 0.0)

    def _tell(self, what: str, waited: float, is_output: bool = False) -> None:
        """Say once that the storage has stalled, and once that it goes on."""
        was_stalled = bool(self._stalled)
        if waited >= self._stall_seconds:
            self._stalled[what] = is_output
            if not was_stalled:
                say(f"{what}: the storage has not answered for {waited:.0f} s; the run waits for it")
        elif self._stalled.pop(what, None) is not None and not self._stalled:
            say("the storage answers again, the run goes on")

    def _end(self, what: str, save: Callable[[], None]) -> None:
        end_process(
            EXIT_RUN_FAILED,
            f"{what}: the storage has not answered for {self.seconds:g} s (errors.storage_seconds). Rows that were "
            f"saved before are kept; see to the file system on {socket.gethostname()} (mounts, servers, disks), and "
            "run the same command again",
            save,
        )


def printing() -> AbstractContextManager[None]:
    """Around what prints on standard error: a terminal that is paused, or a pipe that nobody reads, is no storage."""
    is_file = stat.S_ISREG(os.fstat(2).st_mode)
    return contextlib.nullcontext() if is_file else WATCHDOG.watching(Watch(0, _never))


def _never(waited: float) -> None:
    """Of a watch without a limit."""
