"""Process trees of this machine."""

import contextlib

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
