"""A process of a stand-in as a fork of the run, which has imported all that it needs."""

import contextlib
import gc
import os
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection, Pipe

from fork_server import close_all_but, renew_streams


class Forked:
    """A child process that runs a function on its end of a pipe, with the methods of subprocess.Popen that are used."""

    def __init__(self, serve: Callable[[Connection], None]) -> None:
        ours, theirs = Pipe(duplex=True)
        self.connection = ours
        self.pid = os.fork()
        if self.pid:
            theirs.close()
            return
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        # What is garbage now must not be collected: it would close descriptors by numbers that are new ones then.
        gc.freeze()
        # Only its own end: it has to see when the parent is gone.
        close_all_but(theirs.fileno())
        renew_streams()
        with contextlib.suppress(EOFError, OSError):
            serve(theirs)
        os._exit(0)

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    def wait(self) -> int:
        with contextlib.suppress(ChildProcessError):
            return os.waitpid(self.pid, 0)[1]
        return 0
