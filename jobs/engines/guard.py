"""The guard of a run with several engines: when the run's parent process is gone, however it ended, kills what it left.

A process of its own, in a session of its own, which runs this file alone and imports nothing else of run-batch. Its
standard input tells it of process groups: `+ID` when one begins, `-ID` once it has ended. At end of file, which is the
end of the parent, it kills those that are left, with all that their processes have started.
"""

import contextlib
import os
import signal
import sys


def main() -> None:
    """Watch until standard input ends, then kill."""
    # Schedulers send these to every process of a job: the parent decides what they mean.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    groups: set[int] = set()
    for line in sys.stdin:
        change = groups.add if line[0] == "+" else groups.discard
        change(int(line[1:]))
    for group in groups:
        with contextlib.suppress(ProcessLookupError):  # it has ended by itself
            os.killpg(group, signal.SIGKILL)


if __name__ == "__main__":
    main()
