"""Leases: one process at a time works on a folder under a name, and another takes over once that process is dead.

A lease is a file `lease-NAME.N` made by exclusive create; the one with the highest N counts. Its holder touches it
every few seconds. A process takes over the stale lease N by creating N+1, in which only one can succeed. The file
system has to support exclusive create, and to set file times by one clock, nothing else. Leases prevent duplicate
work; results do not depend on them, as each journal has one writer and shards appear by atomic rename, whoever writes
them.
"""

import contextlib
import json
import os
import re
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from run_batch.io.coordination.process_identity import Holder, has_ended, is_of_this_machine, this_process
from run_batch.io.files import is_same_file, list_names, read_file
from run_batch.io.transient import retry

REFRESH_SECONDS = 5.0
# A lease that was not touched for so long is stale: on another host, nothing else tells that its holder is dead.
STALE_SECONDS = 60.0
# The same for a lease that names no holder yet: the name is written milliseconds after creation. A process that is
# slower than this finds that another has taken over.
_UNWRITTEN_SECONDS = 5.0


class LeaseHeldError(Exception):
    """Another process holds the lease; the message says which, where, and since when.

    Attributes:
        seconds: time until the lease is stale unless its holder touches it; None if the holder is known to run.
    """

    def __init__(self, message: str, seconds: float | None = None) -> None:
        super().__init__(message)
        self.seconds = seconds


class LeaseLost(Exception):
    """The lease was taken over or removed while this process held it."""


def holder_of(path: Path) -> Holder | None:
    """Read who created a lease; None if it has not written its name yet, or ended before it did.

    Raises:
        FileNotFoundError: the lease has been released.
    """
    try:
        return Holder(**json.loads(read_file(path)))
    except (ValueError, TypeError):
        return None


def check_stale(path: Path) -> Holder | None:
    """Check that a lease is stale; return its dead holder, or None if that ended before it wrote its name.

    Raises:
        LeaseHeldError: the holder runs, or may do so.
        FileNotFoundError: the lease has been released.
    """
    age = file_age(path)
    holder = holder_of(path)
    if holder is not None and is_of_this_machine(holder):
        if has_ended(holder):
            return holder
        raise LeaseHeldError(f"{holder.describe()}; it is running")
    lasts = STALE_SECONDS if holder is not None else _UNWRITTEN_SECONDS
    if age > lasts:
        return holder
    who = holder.describe() if holder is not None else "a process that is starting"
    raise LeaseHeldError(
        f"{who}; its last sign of life is {age:.0f} s old: if it is dead, the job can be taken over in "
        f"{lasts - age:.0f} s",
        lasts - age,
    )


def file_age(path: Path) -> float:
    """Seconds since a file was touched, by the clock of the file system: a new file beside it tells the time.

    Raises:
        FileNotFoundError: the file has been removed.
    """
    return storage_time(path.parent) - retry(path.stat).st_mtime


def storage_time(folder: Path) -> float:
    """The time by the clock that the file system sets file times by, in seconds since the epoch: that of a new file.

    Raises:
        OSError: no file can be made there.
    """
    probe = folder / f".clock-{socket.gethostname()}-{os.getpid()}-{threading.get_ident()}.tmp"
    descriptor = os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        os.write(descriptor, b".")
        return os.fstat(descriptor).st_mtime
    finally:
        os.close(descriptor)
        probe.unlink(missing_ok=True)


def last_lease(folder: Path, name: str) -> tuple[Holder | None, float] | None:
    """Who has the lease of this name on a folder, or had it when it died, and when that was touched last (by the clock
    of the storage); None where it was never taken, or has been released. Writes nothing.

    Raises:
        OSError: the folder cannot be read.
    """
    numbers = _numbers(folder, name)
    try:
        path = _file(folder, name, max(numbers)) if numbers else None
        return (holder_of(path), path.stat().st_mtime) if path is not None else None
    except FileNotFoundError:
        return None


def is_held(folder: Path, name: str) -> bool:
    """Whether a process holds the lease of this name on a folder, as far as can be told.

    Raises:
        OSError: the folder cannot be read.
    """
    numbers = _numbers(folder, name)
    try:
        if numbers:
            check_stale(_file(folder, name, max(numbers)))
    except LeaseHeldError:
        return True
    except FileNotFoundError:
        pass
    return False


def _file(folder: Path, name: str, number: int) -> Path:
    return folder / f"lease-{name}.{number}"


def _numbers(folder: Path, name: str) -> list[int]:
    pattern = re.compile(rf"lease-{re.escape(name)}\.(\d+)")
    return [int(match[1]) for name in list_names(folder) if (match := pattern.fullmatch(name))]


class Lease:
    """The lease of one name on a folder, held by this process from `take` to `release`."""

    def __init__(self, folder: Path, name: str, on_lost: Callable[[LeaseLost], None] | None = None) -> None:
        """Prepare to take a lease.

        Args:
            folder: the folder that the lease is a file in.
            name: leases of different names do not exclude each other.
            on_lost: called in a thread when another process has taken over, or the folder has been removed.
        """
        self._folder, self._name = folder, name
        self._on_lost = on_lost
        self._lost: LeaseLost | None = None
        self._path: Path | None = None
        self._descriptor = -1
        self._released = threading.Event()
        # Which touch of the file waits for the storage, counted from 0; None while none does.
        self.touching: int | None = None

    @property
    def path(self) -> Path:
        """Path of the file; only once the lease is taken."""
        assert self._path is not None
        return self._path

    def take(self) -> Holder | None:
        """Take the lease, from a dead process if need be, and touch it from now on in a thread.

        Returns:
            The dead process, or None if there was none or it is unknown.

        Raises:
            LeaseHeldError: another process holds it.
            OSError: the folder does not exist or cannot be written to.
        """
        before: Holder | None = None
        while True:
            highest = max(self._numbers(), default=0)
            try:
                before = check_stale(self._file(highest)) if highest else None
            except FileNotFoundError:
                continue  # released meanwhile: numbers may start from 1 again
            except LeaseHeldError as error:
                if error.seconds is None or error.seconds > _UNWRITTEN_SECONDS:
                    raise
                time.sleep(0.1)  # its process is about to write its name, or was killed just now
                continue
            if self._create(highest + 1):
                break
        try:
            # Others may have taken over and released since this process looked. One that then started from 1 again
            # may have looked before this new file was there, but then its own file is there now.
            if highest:
                check_stale(self._file(highest))
        except FileNotFoundError:
            pass
        except LeaseHeldError:
            self.release()
            raise
        for number in self._numbers():
            if number <= highest:
                self._file(number).unlink(missing_ok=True)
        threading.Thread(target=self._refresh, name="lease", daemon=True).start()
        return before

    def check(self) -> None:
        """Raise an error if the lease has been lost.

        Raises:
            LeaseLost: another process has taken over, or the folder has been removed.
        """
        if self._lost is not None:
            raise self._lost

    def release(self) -> None:
        """Give the lease up, so that others can take it; does nothing to the lease of another process."""
        self._released.set()
        if self._path is not None and self._descriptor >= 0:
            with contextlib.suppress(OSError):
                # Once it was lost and its successor has ended, another process may have made a lease of this name.
                if is_same_file(self._path, self._descriptor):
                    self._path.unlink()
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _file(self, number: int) -> Path:
        return _file(self._folder, self._name, number)

    def _numbers(self) -> list[int]:
        return _numbers(self._folder, self._name)

    def _create(self, number: int) -> bool:
        """Create the lease with this number and become its holder; False if another process was faster."""
        try:
            descriptor = os.open(self._file(number), os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        except FileExistsError:
            return False
        try:
            os.write(descriptor, json.dumps(asdict(this_process())).encode())
            os.fsync(descriptor)
        except OSError:
            self._file(number).unlink(missing_ok=True)
            os.close(descriptor)
            raise
        # This process may have been slow: since it looked, created and wrote, others may have removed the file as stale
        # or created higher numbers.
        is_there = is_same_file(self._file(number), descriptor)
        if not is_there or max(self._numbers(), default=number) > number:
            if is_there:
                self._file(number).unlink(missing_ok=True)
            os.close(descriptor)
            return False
        self._path, self._descriptor = self._file(number), descriptor
        return True

    def _refresh(self) -> None:
        touches = -1
        while not self._released.wait(REFRESH_SECONDS):
            self.touching = touches = touches + 1
            problem = self._problem()
            self.touching = None
            if problem and not self._released.is_set():
                self._lost = LeaseLost(problem)
                if self._on_lost is not None:
                    self._on_lost(self._lost)
                return

    def _problem(self) -> str | None:
        """Touch the lease; return what has happened to it if this process no longer holds it."""
        assert self._path is not None
        try:
            os.utime(self._descriptor)
            numbers = self._numbers()
        except FileNotFoundError:
            return f"{self._folder} no longer exists"
        except OSError:
            return None  # a storage error does not end a lease; if it lasts, writing results fails
        ours = int(self._path.name.rpartition(".")[2])
        if ours in numbers and max(numbers) == ours:
            return None
        if not numbers:
            return f"{self._path} no longer exists"
        holder = None
        with contextlib.suppress(OSError):
            holder = holder_of(self._file(max(numbers)))
        return f"another run has taken over: {holder.describe() if holder else 'it does not say who'}"
