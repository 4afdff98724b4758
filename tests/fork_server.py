"""The process that the processes of tests are forked from: it has imported all that they import."""

import multiprocessing
import os
import sys
from multiprocessing import resource_tracker
from pathlib import Path

_TESTS = Path(__file__).parent
# It finds modules by the environment alone.
os.environ["PYTHONPATH"] = os.pathsep.join(
    [str(_TESTS / "faults"), str(_TESTS), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
)
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["command_imports", "stand_ins", "rowless"])


_inherited: list[object] = []


def renew_streams() -> None:
    """Replace the streams that a fork has inherited: a thread that does not exist in it may hold their locks."""
    # To drop one would flush it.
    _inherited.extend((sys.stdout, sys.stderr))
    sys.stdout, sys.stderr = (os.fdopen(stream, "w", buffering=1, closefd=False) for stream in (1, 2))


def close_all_but(kept: int) -> None:
    """Close what a fork has inherited, but one descriptor, standard streams and the pipe to the resource tracker.

    multiprocessing closes the number of that pipe when it finds it closed, whatever another thread has opened by then.
    """
    tracker = resource_tracker._resource_tracker._fd  # type: ignore[attr-defined]
    begin = 3
    for descriptor in sorted({kept, kept if tracker is None else tracker}):
        os.closerange(begin, descriptor)
        begin = descriptor + 1
    os.closerange(begin, max(begin, 256))
