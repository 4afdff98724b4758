"""What a terminal shows while the model loads."""

import os
import pty
import re
import sys
import termios

import pytest

from run_batch.jobs.watch import loading_line as watched
from run_batch.jobs.watch.loading_line import loading_line


def test_seconds_are_counted_while_the_model_loads_and_the_line_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watched, "_TICK_SECONDS", 0.01)
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    shown = b""
    with open(theirs, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        with loading_line(quiet=False):
            while not re.search(r"loading the model … \d+ s".encode(), shown):
                shown += os.read(ours, 1000)
        print("next", file=terminal, flush=True)
        while b"next" not in shown:
            shown += os.read(ours, 1000)
    os.close(ours)
    line, _, rest = shown.rpartition(b" s")
    assert b"\n" not in line and rest.endswith(b"next\r\n") and rest[:-6].strip() == b"", shown


@pytest.mark.parametrize("quiet", [True, False])
def test_nothing_is_counted_in_a_file_nor_for_who_wants_quiet(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, quiet: bool
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: quiet, raising=False)
    with loading_line(quiet):
        pass
    assert capsys.readouterr().err == ""
