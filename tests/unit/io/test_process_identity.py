"""Which process is meant, and whether it has ended."""

from dataclasses import replace
from pathlib import Path

from run_batch.io.coordination.process_identity import this_process


def test_a_process_is_told_from_another_by_its_start(tmp_path: Path) -> None:
    ours = this_process()
    assert replace(ours, since=0.0) == replace(this_process(), since=0.0)
    assert ours.started.isdigit()
