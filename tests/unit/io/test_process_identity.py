"""Which process is meant, and whether it has ended."""

import os
import subprocess
import sys
from dataclasses import replace

from run_batch.io.coordination.process_identity import has_ended, this_process


def test_a_process_is_told_from_another_by_its_start() -> None:
    ours = this_process()
    assert replace(ours, since=0.0) == replace(this_process(), since=0.0)
    assert ours.started.isdigit()
    assert not has_ended(ours) and has_ended(replace(ours, started="1"))


def test_a_dead_process_has_ended_even_before_its_parent_has_noticed() -> None:
    process = subprocess.Popen([sys.executable, "-c", "pass"])
    with open(f"/proc/{process.pid}/stat") as file:
        started = file.read().rpartition(")")[2].split()[19]
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    zombie = replace(this_process(), pid=process.pid, started=started)
    assert has_ended(zombie)
    process.wait()
    assert has_ended(zombie)


def test_of_another_machine_no_process_is_known_to_have_ended() -> None:
    assert not has_ended(replace(this_process(), machine="another", started="1"))
