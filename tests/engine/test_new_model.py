"""`run-batch new-model`: what it writes works as it is."""

import subprocess
import sys
from pathlib import Path

import pytest

import jobs


@pytest.mark.engine
def test_the_test_of_a_new_model_passes_as_it_is_written(tmp_path: Path) -> None:
    """It maps rows, and generates with a tiny checkpoint what plain PyTorch generates."""
    made = subprocess.run([jobs.COMMAND, "new-model", "night_owl"], cwd=tmp_path, capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    words = made.stdout.strip().partition("next: python ")[2].split()
    tested = subprocess.run([sys.executable, *words], cwd=tmp_path, capture_output=True, text=True, timeout=240)
    assert tested.returncode == 0 and " 2 passed" in f" {tested.stdout.splitlines()[-1]}", tested.stdout
