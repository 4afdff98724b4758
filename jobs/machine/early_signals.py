"""Signals that come before a command has anything to save: one line, exit code 75.

Imported before anything else, so it imports nothing but what Python itself has imported: the imports of a command take
a good part of a second, those of vLLM many.
"""

import os
import signal

# Also in errors.py, which imports too much to be imported here.
EXIT_INTERRUPTED = 75
INTERRUPTED_LINE = "interrupted; run the same command again to go on"
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


def end_when_interrupted(line: str = INTERRUPTED_LINE) -> None:
    """Until there is something to save, have a signal end the process at once.

    No exception is raised: it would come out of whatever is imported just then, which may print it, or swallow it.

    Args:
        line: what is said then; nothing if it is empty.
    """
    text = f"{line}\n".encode() if line else b""

    def end(number: int, frame: object) -> None:
        # Slurm, or a script that passes signals on, may send more of them: the line appears once.
        for same in _SIGNALS:
            signal.signal(same, signal.SIG_IGN)
        try:  # noqa: SIM105 (contextlib is one more import)
            # A line that counts seconds may stand there.
            os.write(2, b"\r\x1b[K" + text if text and os.isatty(2) else text)
        except OSError:  # the terminal is gone
            pass
        os._exit(EXIT_INTERRUPTED)

    for number in _SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, end)
