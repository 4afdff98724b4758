"""Which process something belongs to, told from all others on all machines, and whether it has ended."""

import os
import socket
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Holder:
    """A process, told from all others on all machines.

    Attributes:
        host: for people.
        machine: of this boot of the machine, and of the process namespace: where `pid` means something.
        pid: process id.
        started: when the process started, in the kernel's own count: process ids come again, the pair does not.
        since: seconds since the epoch, for people.
    """

    host: str
    machine: str
    pid: int
    started: str
    since: float

    def describe(self) -> str:
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.since))
        return f"host {self.host}, process {self.pid}, since {when}"


def this_process() -> Holder:
    return Holder(socket.gethostname(), _machine(), os.getpid(), _started(os.getpid()) or "", time.time())


def is_of_this_machine(holder: Holder) -> bool:
    """Whether a process id of this machine, as it has run since its last boot, is meant."""
    return holder.machine == _machine()


def has_ended(holder: Holder) -> bool:
    """Whether a process is known to be dead: only one of this machine is."""
    return is_of_this_machine(holder) and _started(holder.pid) != holder.started


def _machine() -> str:
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot} {os.stat('/proc/self/ns/pid').st_ino}"


def _started(pid: int) -> str | None:
    """When a process of this machine started; None for one that is dead, or dead but for its parent's notice."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]
