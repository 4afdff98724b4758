"""Process trees of this machine."""

import contextlib
import ctypes
import os
import signal

import psutil


def kill_tree(pid: int) -> None:
    """Send SIGKILL to a process and to all its descendants; one that has ended already is left out."""
    with contextlib.suppress(psutil.NoSuchProcess):
        root = psutil.Process(pid)
        # Listed before any of them is killed: the children of a dead process are no longer its children.
        for process in [root, *root.children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()


def kill_children() -> None:
    """Send SIGKILL to all descendants of this process."""
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


def end_with(parent: int) -> None:
    """Have the kernel kill this process when the thread that has started it ends: the main thread of the parent.

    Args:
        parent: its process id.
    """
    set_death_signal = 1  # PR_SET_PDEATHSIG of prctl(2)
    ctypes.CDLL(None).prctl(set_death_signal, signal.SIGKILL)
    if os.getppid() != parent:  # the parent died before prctl
        os._exit(1)
