"""Identifies a process among those of all machines, and tells whether it has ended."""

import os
import socket
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Holder:
    """The process that holds a lease, identified by `machine`, `pid` and `started`.

    Attributes:
        host: name of the host, for people to read.
        machine: boot id and process namespace of the machine, within which `pid` identifies a running process.
        pid: process id.
        started: start time of the process in clock ticks since boot: the kernel reuses ids, but not with this time.
        since: when this record was made, in seconds since the epoch, for people to read.
    """

    host: str
    machine: str
    pid: int
    started: str
    since: float

    def describe(self) -> str:
        """Host, process id and time, for messages."""
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.since))
        return f"host {self.host}, process {self.pid}, since {when}"


def this_process() -> Holder:
    """Identify the calling process."""
    return Holder(socket.gethostname(), _machine(), os.getpid(), _started(os.getpid()) or "", time.time())


def is_of_this_machine(holder: Holder) -> bool:
    """Whether a process runs or ran on this machine since its last boot, in this process namespace."""
    return holder.machine == _machine()


def has_ended(holder: Holder) -> bool:
    """Whether a process is known to have ended; False for any process of another machine, or of an earlier boot."""
    return is_of_this_machine(holder) and _started(holder.pid) != holder.started


def _machine() -> str:
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot} {os.stat('/proc/self/ns/pid').st_ino}"


def _started(pid: int) -> str | None:
    """Start time of a process of this machine in clock ticks since boot; None for a zombie, or if there is none."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]
