"""Who works on a folder: one process at a time, and another takes over once that one is dead.

A lease is a file `lease-NAME.N` made by exclusive create; the one with the highest N counts. Its holder touches it
every few seconds. Taking over a stale lease N is creating N+1, which only one process can do: that is all that is
asked of the file system, besides its own clock. A lease saves double work; results do not depend on it, because
journals have one writer each and shards appear by atomic rename, whoever writes them.
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

REFRESH_SECONDS = 5.0
# On another host a dead holder shows only by not touching its lease.
STALE_SECONDS = 60.0
# Writing one's name into a lease takes milliseconds; who is slower than this finds that another has gone past it.
_UNWRITTEN_SECONDS = 5.0


class LeaseHeldError(Exception):
    """Another process holds the folder; the message says which, where, and since when.

    Attributes:
        seconds: after which it can be taken over, should its holder be dead; None where the holder is known to live.
    """

    def __init__(self, message: str, seconds: float | None = None) -> None:
        super().__init__(message)
        self.seconds = seconds


class LeaseLost(Exception):
    """The lease has been taken over or removed while it was held."""


def holder_of(path: Path) -> Holder | None:
    """Who made a lease; None where it died before it wrote its name.

    Raises:
        FileNotFoundError: the lease has been released.
    """
    try:
        return Holder(**json.loads(path.read_text()))
    except (ValueError, TypeError):
        return None


def refuse_live(path: Path) -> Holder | None:
    """The dead holder of a lease; None where it died before it wrote its name.

    Raises:
        LeaseHeldError: the holder lives, or may do so.
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
    """Seconds since a file was touched, by the file system's own clock.

    Raises:
        FileNotFoundError: it has gone.
    """
    probe = path.with_name(f".clock-{socket.gethostname()}-{os.getpid()}-{threading.get_ident()}.tmp")
    descriptor = os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        os.write(descriptor, b".")
        return os.fstat(descriptor).st_mtime - path.stat().st_mtime
    finally:
        os.close(descriptor)
        probe.unlink(missing_ok=True)


def is_held(folder: Path, name: str) -> bool:
    """Whether a process holds a folder under this name, as far as can be told.

    Raises:
        OSError: the folder cannot be read.
    """
    numbers = _numbers(folder, name)
    try:
        if numbers:
            refuse_live(_file(folder, name, max(numbers)))
    except LeaseHeldError:
        return True
    except FileNotFoundError:
        pass
    return False


def _file(folder: Path, name: str, number: int) -> Path:
    return folder / f"lease-{name}.{number}"


def _numbers(folder: Path, name: str) -> list[int]:
    pattern = re.compile(rf"lease-{re.escape(name)}\.(\d+)")
    return [int(match[1]) for entry in os.scandir(folder) if (match := pattern.fullmatch(entry.name))]


def _is_same(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


class Lease:
    """The lease of one name on one folder, from `take` to `release`."""

    def __init__(self, folder: Path, name: str, on_lost: Callable[[LeaseLost], None] | None = None) -> None:
        """Args:
        name: several names do not block each other: one for each set of shards.
        on_lost: called, in a thread, when somebody else has taken over or the folder has gone.
        """
        self._folder, self._name = folder, name
        self._on_lost = on_lost
        self._lost: LeaseLost | None = None
        self._path: Path | None = None
        self._descriptor = -1
        self._released = threading.Event()

    @property
    def path(self) -> Path:
        """The file, once the lease is taken."""
        assert self._path is not None
        return self._path

    def take(self) -> Holder | None:
        """Take the lease, or take it over from a dead process; the dead one, if so.

        Raises:
            LeaseHeldError: a live process holds it.
            OSError: the folder is not there or cannot be written to.
        """
        before: Holder | None = None
        while True:
            highest = max(self._numbers(), default=0)
            try:
                before = refuse_live(self._file(highest)) if highest else None
            except FileNotFoundError:
                continue  # released meanwhile: others may start from 1 again
            except LeaseHeldError as error:
                if error.seconds is None or error.seconds > _UNWRITTEN_SECONDS:
                    raise
                time.sleep(0.1)  # it writes its name, or was killed just before
                continue
            if self._create(highest + 1):
                break
        try:
            # Who started from 1 again while we were slow had looked before our file was there; its own is there now.
            if highest:
                refuse_live(self._file(highest))
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
        """Raises:
        LeaseLost: somebody else has taken over, or the folder has gone.
        """
        if self._lost is not None:
            raise self._lost

    def release(self) -> None:
        """Let others take it."""
        self._released.set()
        if self._path is not None and self._lost is None:
            with contextlib.suppress(OSError):
                self._path.unlink()
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _file(self, number: int) -> Path:
        return _file(self._folder, self._name, number)

    def _numbers(self) -> list[int]:
        return _numbers(self._folder, self._name)

    def _create(self, number: int) -> bool:
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
        # Somebody may have been slow between looking, creating and writing: the numbers may have moved on meanwhile.
        is_there = _is_same(self._file(number), descriptor)
        if not is_there or max(self._numbers(), default=number) > number:
            if is_there:
                self._file(number).unlink(missing_ok=True)
            os.close(descriptor)
            return False
        self._path, self._descriptor = self._file(number), descriptor
        return True

    def _refresh(self) -> None:
        while not self._released.wait(REFRESH_SECONDS):
            problem = self._problem()
            if problem and not self._released.is_set():
                self._lost = LeaseLost(problem)
                if self._on_lost is not None:
                    self._on_lost(self._lost)
                return

    def _problem(self) -> str | None:
        """Touch the lease; what is wrong with it, if it is not ours any more."""
        assert self._path is not None
        try:
            os.utime(self._descriptor)
            numbers = self._numbers()
        except FileNotFoundError:
            return f"{self._folder} has gone"
        except OSError:
            return None  # storage that stumbles: what is written next tells whether it is lost
        ours = int(self._path.name.rpartition(".")[2])
        if ours in numbers and max(numbers) == ours:
            return None
        if not numbers:
            return f"{self._path} has gone"
        holder = None
        with contextlib.suppress(OSError):
            holder = holder_of(self._file(max(numbers)))
        return f"another run has taken over: {holder.describe() if holder else 'it does not say who'}"
